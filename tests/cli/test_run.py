"""`run`: two loops in one process, which end together."""

from __future__ import annotations

import threading

import pytest

from stream_interp.cli.run import run_together
from stream_interp.errors import IntegrityError


def test_the_error_of_one_loop_stops_the_other_and_is_raised() -> None:
    ended = threading.Event()

    def fails(_: threading.Event) -> None:
        raise IntegrityError("a checkpoint is too old")

    def waits(stop: threading.Event) -> None:
        assert stop.wait(10)
        ended.set()

    with pytest.raises(IntegrityError, match="too old"):
        run_together([waits, fails], threading.Event())
    assert ended.is_set()


def test_both_end_when_asked() -> None:
    stop, ended = threading.Event(), list[int]()

    def loop(stop: threading.Event) -> None:
        assert stop.wait(10)
        ended.append(1)

    threading.Timer(0.05, stop.set).start()
    run_together([loop, loop], stop)
    assert ended == [1, 1]
