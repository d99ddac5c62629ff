"""Whether the consumer moves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from stream_interp.errors import DependencyUnreachable, StreamInterpError
from stream_interp.notify import progress
from stream_interp.notify.progress import FRESH_S, STALL_S, Progress
from stream_interp.settings import KafkaSettings


class Log:
    """Its end, where the consumer stands, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.end, self.stands, self.now_s, self.reachable = 10, 10, 1_000.0, True
        monkeypatch.setattr(progress, "end_offsets", self._ends)
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now_s)

        async def positions() -> Mapping[int, int]:
            return {0: self.stands}

        self.progress = Progress(KafkaSettings(bootstrap="127.0.0.1:1"), "interp.alerts", positions)

    def _ends(self, *_: Any) -> dict[int, int]:
        if not self.reachable:
            raise DependencyUnreachable("Kafka", "h:1", "gone", "Start it.")
        return {0: self.end}

    def pass_s(self, seconds: float) -> bool:
        """Checks every ten seconds; whether it is healthy after that."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 10.0
            asyncio.run(self.progress._check())
        return self.progress.healthy


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def test_before_the_first_check_nothing_is_vouched_for(log: Log) -> None:
    assert not log.progress.healthy


def test_a_quiet_log_is_healthy(log: Log) -> None:
    assert log.pass_s(600)
    assert log.progress.lags == {}


def test_behind_but_moving_is_healthy(log: Log) -> None:
    for _ in range(20):
        log.stands += 1
        log.end = log.stands + 5
        assert log.pass_s(10)
    assert log.progress.lags == {0: 5}


def test_behind_without_a_step_is_not_and_ends_it(log: Log) -> None:
    assert log.pass_s(20)
    log.end += 3
    assert not log.pass_s(FRESH_S + 10)
    log.pass_s(STALL_S)
    with pytest.raises(StreamInterpError, match="stands still"):
        asyncio.run(log.progress.watch())


def test_without_kafka_nobody_vouches(log: Log) -> None:
    assert log.pass_s(20)
    log.reachable = False
    assert not log.pass_s(FRESH_S + 10)
    log.reachable = True
    assert log.pass_s(10)
