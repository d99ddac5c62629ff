from __future__ import annotations

import math
from contextlib import suppress

import pytest

from stream_interp.observe import board as boards
from stream_interp.observe.board import Board, Reading, Snapshot, input_readings
from stream_interp.observe.distributions import Distributions
from stream_interp.observe.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [1_000.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_process_that_has_not_begun_is_live_and_not_ready() -> None:
    board = Board("encode", ["sae_loaded"])
    assert board.is_live(math.inf)
    assert board.snapshot.missing == ("sae_loaded",)


def test_what_it_shows_is_made_once_a_second(clock: list[float]) -> None:
    board, made = Board("detect"), list[float]()

    def describe() -> Snapshot:
        made.append(clock[0])
        return Snapshot(readings=(Reading("records", len(made)),))

    for _ in range(25):
        board.turn(describe)
        clock[0] += 0.1
    assert len(made) == 3
    assert board.snapshot.readings == (Reading("records", 3),)


def test_it_is_live_while_its_loop_turns(clock: list[float]) -> None:
    board = Board("detect")
    board.turn(Snapshot)
    assert board.is_live(clock[0] + boards.LIVE_WITHIN_S - 1)
    assert not board.is_live(clock[0] + boards.LIVE_WITHIN_S)
    clock[0] += 500
    assert not board.is_live(clock[0])
    board.alive()
    assert board.is_live(clock[0])
    assert board.silent_for_s(clock[0] + 3) == 3


def test_a_lag_that_is_not_known_is_not_shown() -> None:
    assert input_readings("t", {0: 5, 1: None}) == (
        Reading("partitions_assigned", 2),
        Reading("consumer_lag_records", 5, ("t", "0")),
    )


def test_values_are_counted_by_size_and_what_was_handed_out_stays() -> None:
    latency = Distributions("delivery_latency_seconds", (1.0, 2.0))
    latency.begin("b")
    for value in (0.5, 1.0, 1.5, 9.0):
        latency.add(value, "a")
    readings = latency.readings()
    latency.add(0.1, "a")
    assert {r.labels: r.value for r in readings} == {
        ("a",): ((1.0, 2.0), (2, 1, 1), 12.0),
        ("b",): ((1.0, 2.0), (0, 0, 0), 0.0),
    }


def test_a_stopwatch_adds_up_by_phase_even_when_the_phase_fails(clock: list[float]) -> None:
    watch = Stopwatch()
    for seconds in (1.0, 2.0):
        with suppress(ValueError), watch.timed("tick"):
            clock[0] += seconds
            raise ValueError
    assert watch.readings() == (Reading("busy_seconds", 3.0, ("tick",)),)
