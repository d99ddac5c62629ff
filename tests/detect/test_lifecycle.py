"""Acks, silences and orders on a real Kafka: told once, kept over crashes, never part of a replay."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from stream_interp.kafka.control import publish_controls
from stream_interp.kafka.latest import read_latest
from stream_interp.records.alert import Alert, AlertState
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.records.control import Marker, Order, OrderKind, make_order
from tests.detect.lanes import LANE, Driver, requests
from tests.detect.log import ids, marker_record, window_records
from tests.detect.test_process import pure_replay
from tests.detect.workers import Bench
from tests.workers import until


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    bench = Bench(kafka_bootstrap, topic_prefix, tmp_path)
    bench.apply_topics(partitions=2)
    return bench


def drifted() -> Driver:
    driver, rng = Driver(), np.random.default_rng(1)
    driver.learn(rng)
    driver.feed(requests(rng, 80, shift=1.5))
    return driver


def events(bench: Bench) -> list[Alert | Annotation]:
    return [decode_event(message.value()) for message in bench.read("interp.alerts")]


def annotations(bench: Bench) -> list[Annotation]:
    return [event for event in events(bench) if isinstance(event, Annotation)]


def transitions(bench: Bench) -> list[Alert]:
    return [event for event in events(bench) if isinstance(event, Alert)]


def states(bench: Bench) -> dict[str, AlertState]:
    return read_latest(bench.kafka, "interp.alert-state", AlertState)


def order(bench: Bench, kind: OrderKind, incident: str = "", seconds: float = 0) -> None:
    now_ms = time.time_ns() // 1_000_000
    until_ms = now_ms + int(1000 * seconds) if seconds else 0
    asked = Order(kind=kind, lane=LANE, version=now_ms, incident_id=incident, until_ms=until_ms)
    publish_controls(bench.kafka, [make_order(asked, "ann", "a campaign, we know")])


def blind_and_seeing(driver: Driver, times: int) -> list:
    """The lane goes blind before each window: two transitions each."""
    rng, records = np.random.default_rng(2), []
    for _ in range(times):
        before = len(driver.windows)
        driver.feed(requests(rng, 8, shift=1.5))
        at = driver.windows[-1].header.closed_at_ms
        marker = Marker(kind="blind", lane=LANE, at_ms=at, after_position=10**9)
        records += [marker_record(marker), *window_records(driver.windows[before:])]
    return records


def test_an_ack_outlives_a_hundred_transitions_and_a_kill(bench: Bench) -> None:
    driver = drifted()
    with bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows))
        until(lambda: transitions(bench), worker)
        incident = transitions(bench)[0].incident_id
        order(bench, "ack", incident)
        until(lambda: (state := states(bench).get(incident)) is not None and state.ack, worker)
        bench.produce("interp.windows", blind_and_seeing(driver, 25))
        until(lambda: len(transitions(bench)) >= 50, worker)
        worker.kill()
    bench.produce("interp.windows", blind_and_seeing(driver, 25))
    with bench.worker() as worker:
        until(lambda: len(transitions(bench)) >= 101, worker)
        until(lambda: bench.statuses()["h"].closed_at_ms == driver.windows[-1].header.closed_at_ms, worker)
        time.sleep(3)
        assert worker.terminate() == 0
    ack = states(bench)[incident].ack
    assert ack is not None
    assert (ack.author, ack.reason) == ("ann", "a campaign, we know")
    card = bench.statuses()["h"].incident
    assert card is not None
    assert card.ack == ack
    assert [a.kind for a in annotations(bench)] == ["ack"]  # told once, over the kill and the restart
    found = ids([a for a in transitions(bench) if not a.after_alarm])  # that job is no part of the log, and may repeat
    assert len(found) == len(set(found)) >= 101
    assert set(found) == {event for told in pure_replay(bench).values() for event in ids(told.alerts)}


def test_a_silence_shows_in_the_status_and_ends_by_itself(bench: Bench) -> None:
    driver = drifted()
    with bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows))
        until(lambda: transitions(bench), worker)
        order(bench, "silence", seconds=4)
        until(lambda: bench.statuses()["h"].silence, worker)
        until(lambda: bench.statuses()["h"].silence is None, worker)
        order(bench, "silence", seconds=3600)
        until(lambda: bench.statuses()["h"].silence, worker)
        order(bench, "unsilence")
        until(lambda: bench.statuses()["h"].silence is None, worker)
        assert worker.terminate() == 0
    assert [a.kind for a in annotations(bench)] == ["silence", "silence", "unsilence"]


def test_resolve_and_relearn_are_markers_that_a_restart_does_not_repeat(bench: Bench) -> None:
    driver = drifted()
    with bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows))
        until(lambda: transitions(bench), worker)
        order(bench, "resolve", transitions(bench)[0].incident_id)
        until(lambda: transitions(bench)[-1].transition == "resolved", worker)
        until(lambda: bench.statuses()["h"].state == "ok", worker)
        order(bench, "relearn")
        until(lambda: bench.statuses()["h"].state == "learning", worker)
        worker.kill()
    with bench.worker() as worker:
        until(lambda: "1 lanes restored" in worker.text, worker)
        time.sleep(4)
        assert worker.terminate() == 0
    assert len(bench.markers()) == 2
    assert bench.statuses()["h"].state == "learning"
    assert set(ids(transitions(bench))) == {e for told in pure_replay(bench).values() for e in ids(told.alerts)}
    assert transitions(bench)[-1].note == "resolved by ann (as claimed): a campaign, we know"
