from __future__ import annotations

import pytest

from stream_interp.ui.text import age, cut, held, instant, number, percent


def test_cut_leaves_nothing_to_obey() -> None:
    assert cut("<b>\x1b[31mtwo\nlines") == "<b>�[31mtwo lines"  # escaping is the template's


def test_cut_is_short_and_says_so() -> None:
    shown = cut("x" * 10_000)
    assert len(shown) == 160
    assert shown.endswith("…")
    assert cut("x" * 10_000, 20) == "x" * 19 + "…"
    assert cut("x" * 20, 20) == "x" * 20


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (-3, "0 s"), (12.4, "12 s"), (61, "1 min"), (19_260, "5 h 21 min"), (352_800, "4 d 2 h")],
)
def test_age(seconds: float | None, shown: str) -> None:
    assert age(seconds) == shown


def test_instants_beyond_any_calendar_are_shown_as_they_are() -> None:
    assert instant(1_767_225_600_000) == "2026-01-01 00:00:00"
    assert instant(10**18) == f"{10**18} ms"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (float("inf"), "–"), (48_211, "48,211"), (0.8231, "0.823"), (171.24, "171"), (3.0, "3")],
)
def test_number(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (1.0, "100%"), (0.99999, "99.99%"), (0.402, "40.2%"), (0.00046, "0.046%")]
)
def test_a_share_close_to_all_never_reads_as_all(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_partitions_are_listed_by_topic_in_runs() -> None:
    assert held(["w/0", "w/1", "w/2", "w/5", "a/10", "w/4"]) == ["a 10", "w 0–2, 4–5"]
    assert held(["no number", "x/y", "/3", "t/²"]) == ["no number", "x/y", "/3", "t/²"]
    assert held([]) == []
