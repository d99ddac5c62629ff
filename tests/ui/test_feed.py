"""The feed's life around faults, on followers that the test holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from stream_interp.errors import DependencyUnreachable
from stream_interp.records.consumed import Consumed
from stream_interp.records.status import encode_status
from stream_interp.settings import KafkaSettings
from stream_interp.ui import feed as feeding
from stream_interp.ui.feed import TOPICS_READ, Feed, ui_board
from tests.ui.records import NOW_MS, lane, status


class Cluster:
    """What the followers find, and whether it answers."""

    def __init__(self) -> None:
        self.lanes, self.fails, self.opened, self.closed = 1, list[Exception](), 0, 0
        self.hold_back = threading.Event()

    def follower(self, _kafka: KafkaSettings, topic: str) -> Follower:
        self.opened += 1
        return Follower(self, topic)


class Follower:
    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster, self._topic, self._read = cluster, topic, 0

    @property
    def at_end(self) -> bool:
        return not self._cluster.hold_back.is_set()

    def poll(self) -> list[Consumed]:
        if self._topic != "interp.status":
            return []
        if self._cluster.fails:
            raise self._cluster.fails.pop()
        envelopes = [encode_status(status(lane(k))) for k in range(self._read, self._cluster.lanes)]
        self._read = self._cluster.lanes
        return [Consumed(self._topic, 0, 0, NOW_MS, e.key, [], e.value) for e in envelopes]

    def close(self) -> None:
        self._cluster.closed += 1


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(feeding, "TopicFollower", made.follower)
    monkeypatch.setattr(feeding, "_AGAIN_S", 0.2)
    monkeypatch.setattr(feeding, "_IDLE_S", 0.01)
    return made


def until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def n_lanes(feed: Feed) -> int:
    return feed.ask(lambda model: len(model.statuses))


@pytest.mark.parametrize("fault", [DependencyUnreachable("Kafka", "k:1", "gone", "Wait."), ZeroDivisionError("ours")])
def test_after_a_fault_it_says_so_and_reads_everything_again(cluster: Cluster, fault: Exception) -> None:
    with Feed(KafkaSettings()) as feed:
        until(lambda: feed.state.caught_up and n_lanes(feed) == 1)
        cluster.lanes = 5
        until(lambda: n_lanes(feed) == 5)
        cluster.hold_back.set()
        cluster.fails.append(fault)
        until(lambda: bool(feed.state.fault))
        until(lambda: cluster.opened == 12)
        assert n_lanes(feed) == 5  # the old model is shown until the new one has caught up
        assert feed.state.fault
        cluster.hold_back.clear()
        until(lambda: not feed.state.fault)
        assert n_lanes(feed) == 5
    assert cluster.closed == cluster.opened == 12


def test_it_is_ready_once_it_has_read_what_was_there(cluster: Cluster) -> None:
    cluster.hold_back.set()
    board = ui_board()
    with Feed(KafkaSettings(), board) as feed:
        until(lambda: n_lanes(feed) == 1)
        assert not feed.state.caught_up
        assert board.snapshot.missing == (TOPICS_READ,)
        cluster.hold_back.clear()
        until(lambda: not board.snapshot.missing)
        assert feed.state.caught_up
