from __future__ import annotations

import io

import pytest
from msgspec import structs
from rich.console import Console

from stream_interp.records.alert import encode_alert
from stream_interp.records.status import encode_status
from stream_interp.ui.model.model import Model
from stream_interp.ui.screen import last_first, screen
from stream_interp.ui.views.fleet import fleet
from stream_interp.ui.views.lanes import Now
from tests.ui import records
from tests.ui.records import NOW_MS, card, feed, lane, status, story

NOW = Now(NOW_MS, 15_000)
HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>[red]\n" + "x" * 10_000


def drawn(model: Model, width: int, height: int | None, first: int = 0) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, force_terminal=True)
    console.print(screen(fleet(model, NOW, size=10_000), width, height, first))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])
def test_it_fits(width: int, height: int) -> None:
    model = Model()
    records.fleet(model, lanes=50, incidents=2)
    lines = drawn(model, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "2 critical" in text
    assert "2 unacknowledged" in text
    assert "sinks failing: pager" in text
    assert "1 SILENT" in text
    assert ("requests" in text) == (width > 100)


def test_worst_first_and_scrolling() -> None:
    model = Model()
    records.fleet(model, lanes=50, incidents=2)
    assert "blind" in "\n".join(drawn(model, 80, 24)[5:12])
    last = last_first(fleet(model, NOW, size=10_000), 24)
    bottom = drawn(model, 80, 24, first=last)
    assert f"lanes {last + 1}–50 of 50" in bottom[-1]
    assert len(bottom) == 24
    assert "unacknowledged, 8 min, credit-risk" in bottom[3]


def test_hostile_names_obey_nobody() -> None:
    model, of = Model(), lane(0, model_id=HOSTILE, tenant=HOSTILE)
    told = story(of, 1, opened_at_ms=NOW_MS, resolved=False)
    feed(model, "interp.alerts", *map(encode_alert, told))
    feed(model, "interp.status", encode_status(status(of, "critical", reason=HOSTILE, incident=card(told[-1]))))
    lines = drawn(model, 200, 24)
    text = "".join(lines)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text  # markup is text
    assert len(lines) <= 24


def test_nothing_yet() -> None:
    assert "no lane yet" in "\n".join(drawn(Model(), 80, 24))


def test_it_says_that_more_are_open_and_what_a_lane_suffers_from() -> None:
    model = Model()
    for k in range(6):
        told = story(lane(k), 1, opened_at_ms=NOW_MS, resolved=False)[0]
        trouble = {"transition": "integrity_error", "severity": "critical", "groups": [], "features_drifted": 0}
        feed(model, "interp.alerts", encode_alert(structs.replace(told, **trouble)))
    text = "\n".join(drawn(model, 120, 24))
    assert "and 2 more: stream-interp alerts list" in text
    assert "✕" in text
    assert "0 features" not in text
