from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.evidence.path import Point
from stream_interp.records.alert import Position
from stream_interp.records.status import Health
from stream_interp.ui.model.model import Model
from stream_interp.ui.replays import AGAIN_S, BEING_MADE, MAX_KEPT, Replays
from stream_interp.ui.views.incident import IncidentView, incident_view
from stream_interp.ui.views.lanes import Now
from tests.ui import records
from tests.ui.records import NOW_MS, incident_id, lane


def view_of(number: int = 3) -> IncidentView:
    model = Model()
    records.fleet(model, lanes=1, incidents=3)
    view = incident_view(model, incident_id(lane(), number), Now(NOW_MS, 15_000))
    assert view is not None
    return view


def point(k: int, log_e: float | None) -> Point:
    return Point(
        offset=k, closed_at_ms=NOW_MS + k, request=10 * k, open=log_e is not None and log_e > 6,
        log_e={"feature 7 up": log_e}, log_threshold={"feature 7 up": 6.0},
        health=Health(l0=40.0 + k, l0_baseline=39.0),
    )  # fmt: skip


def until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_the_page_never_waits_and_gets_the_exact_path_later() -> None:
    go, view = threading.Event(), view_of()

    def replay(_incident: str) -> list[Point]:
        go.wait(10)
        return [point(0, None), point(1, 3.0), point(2, 8.0)]

    replays = Replays(replay)
    assert replays.improve(view).paths.why == BEING_MADE
    assert replays.improve(view).paths.source == "transitions"
    go.set()
    until(lambda: replays.improve(view).paths.source == "replay")
    better = replays.improve(view)
    assert [request for request, _ in better.paths.series[0].points] == [0, 10, 20]
    assert better.paths.series[0].points[-1][1] > 0
    [l0] = [s for s in better.health if s.name == "l0"]
    assert l0.points == [(NOW_MS + k, 40.0 + k) for k in range(3)]
    assert (l0.now, l0.baseline) == (42.0, 39.0)  # of the incident, whatever judges the lane now
    replays.close()


def test_it_says_why_there_is_no_replay_and_goes_on() -> None:
    calls: list[str] = []

    def replay(incident: str) -> list[Point]:
        calls.append(incident)
        if len(calls) == 1:
            raise IntegrityError("windows have expired")
        raise ZeroDivisionError("a fault of ours")

    replays, view = Replays(replay), view_of()
    until(lambda: replays.improve(view).paths.why == "windows have expired")
    moved = structs.replace(view, row=structs.replace(view.row, position=Position(partition=1, offset=10_000)))
    until(lambda: "ZeroDivisionError" in replays.improve(moved).paths.why)
    assert len(calls) == 2  # once for each position of the log
    replays.close()


def test_an_open_incident_is_replayed_again_and_a_closed_one_is_not() -> None:
    calls, clock = list[str](), [0.0]
    replays = Replays(lambda i: [point(len(calls), 1.0)] if calls.append(i) is None else [], lambda: clock[0])
    for number, again in ((3, 1), (1, 0)):
        calls.clear()
        view = view_of(number)
        until(lambda view=view: replays.improve(view).paths.source == "replay")
        clock[0] += AGAIN_S + 1
        replays.improve(view)
        time.sleep(0.1)
        assert len(calls) == 1 + again
    replays.close()


def test_only_the_newest_are_kept() -> None:
    replays, view = Replays(lambda _: [point(0, 1.0)]), view_of()
    for k in range(MAX_KEPT + 5):
        other = structs.replace(view, row=structs.replace(view.row, incident_id=f"{k}"))
        until(lambda other=other: replays.improve(other).paths.source == "replay")
    assert len(replays._kept) == MAX_KEPT
    replays.close()
