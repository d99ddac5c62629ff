"""DETECT on a real Kafka and a real Redis: crashes, markers, silence, zombies."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from msgspec import structs

from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.kafka.client import consumer, consumer_config
from stream_interp.kafka.control import publish_controls
from stream_interp.records.alert import Alert, AlertState
from stream_interp.records.control import make_control
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane
from stream_interp.status.client import StatusClient
from tests.detect.lanes import LANE, SETTINGS, Driver, requests
from tests.detect.log import ids, story, window_records
from tests.detect.workers import Bench
from tests.workers import until


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    return Bench(kafka_bootstrap, topic_prefix, tmp_path)


def pure_replay(bench: Bench) -> dict[int, Told]:
    """What the committed windows log alone leads to, by partition."""
    partitions: dict[int, WindowsPartition] = {}
    told: dict[int, Told] = {}
    for record in bench.windows_log():
        p = record.partition
        partition = partitions.setdefault(p, WindowsPartition(p, [], 0, -1, SETTINGS))
        partition.take(record, lambda _: None, told.setdefault(p, Told()))
    return told


def live(lanes: int) -> list[Driver]:
    """So many lanes with the same story told by other requests."""
    drivers = []
    for k in range(lanes):
        driver, rng = Driver(lane=structs.replace(LANE, hook_name=f"layer.{k}")), np.random.default_rng(k)
        driver.learn(rng)
        driver.feed(requests(rng, 40))
        driver.feed(requests(rng, 80, shift=1.5))
        drivers.append(driver)
    return drivers


def mixed(drivers: list[Driver]) -> Iterator[list]:
    """The records of one window of each lane in turn; small chunks, so that a window is several records."""
    for windows in zip(*(driver.windows for driver in drivers), strict=True):
        yield window_records(windows, chunk_bytes=4_000)


def test_killed_again_and_again_it_tells_everything_once(bench: Bench) -> None:
    bench.apply_topics(partitions=2)
    rng, rounds = random.Random(1), list(mixed(live(lanes=3)))
    while rounds:
        with bench.worker() as worker:
            until(lambda: "replays" in worker.text, worker)
            for _ in range(min(len(rounds), rng.randint(25, 60))):
                bench.produce("interp.windows", rounds.pop(0))
                time.sleep(rng.uniform(0, 0.02))
            time.sleep(rng.uniform(0, 1.5))
            worker.kill()
    told = pure_replay(bench)
    expected = {event for t in told.values() for event in ids(t.alerts)}
    with bench.worker() as worker:
        until(lambda: "replays" in worker.text and len(bench.alerts()) >= len(expected), worker)
        time.sleep(2)
        assert worker.terminate() == 0
    decisions = [alert for alert in bench.alerts() if not alert.after_alarm]
    assert len(decisions) == len(set(ids(decisions)))
    assert set(ids(decisions)) == expected
    assert len(expected) >= 3
    controls = [m.key().decode() for m in bench.read("interp.control") if m.key().decode().endswith("manifest")]
    assert len(controls) == len(set(controls)) == 6  # projector and baseline of each lane, once
    assert {s.state for s in bench.statuses().values()} == {"critical"}


def told_after(bench: Bench) -> list[Alert]:
    return [alert for alert in bench.alerts() if alert.after_alarm]


def test_killed_between_the_alarm_and_what_follows_it_another_tells_that_once_and_for_all_alike(bench: Bench) -> None:
    bench.apply_topics(partitions=2)
    (driver,) = live(lanes=1)
    driver.feed(requests(np.random.default_rng(9), 80, shift=1.5))
    opened = next(k for k, r in enumerate(driver.results) if any(a.transition == "opened" for a in r.alerts))
    with bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows[: opened + 1]))
        until(lambda: bench.alerts(), worker)
        worker.kill()
    assert told_after(bench) == []
    with bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows[opened + 1 :]))
        until(lambda: told_after(bench), worker)
        time.sleep(1)
        worker.kill()
    (first, *_) = found = told_after(bench)
    with bench.worker() as worker:  # it cannot know that it was told
        until(lambda: len(told_after(bench)) > len(found), worker)
        assert worker.terminate() == 0
    assert {a.event_id: a for a in told_after(bench)} == {a.event_id: a for a in found}
    assert found[-1].change_low_request is not None
    assert found[-1].change_low_request <= 41 <= found[-1].change_high_request
    assert any(drift.ratio_low is not None for drift in found[-1].features)
    last = [
        read_json(m.value(), AlertState)
        for m in bench.read("interp.alert-state")
        if m.key() == first.incident_id.encode()
    ][-1]
    assert (last.transition, last.change_low_request) == ("updated", found[-1].change_low_request)
    told = {event for t in pure_replay(bench).values() for event in ids(t.alerts)}
    assert set(ids(bench.alerts())) - set(ids(found)) == told


def test_an_operators_baseline_takes_effect_through_one_marker(bench: Bench) -> None:
    bench.apply_topics(partitions=3)
    driver = story()
    held = driver.state.baseline
    assert held is not None
    record = make_control("baseline", structs.replace(held.header, version=5), held.arrays, "ann", "approved")
    with bench.worker() as worker:
        until(lambda: "replays" in worker.text, worker)
        publish_controls(bench.kafka, [record])
        until(lambda: bench.markers(), worker)
        (marker,) = bench.markers()
        assert marker.key == LANE.lane_id.encode()
        calibrated = [w for w in driver.windows if w.header.projector_version == held.header.projector_version]
        bench.produce("interp.windows", window_records(calibrated))
        until(lambda: bench.alerts(), worker)
        worker.kill()
    assert {r.partition for r in bench.windows_log()} == {marker.partition}
    with bench.worker() as worker:
        until(lambda: "1 lanes restored" in worker.text, worker)
        time.sleep(4)
        assert worker.terminate() == 0
    assert len(bench.markers()) == 1
    found = bench.alerts()
    assert len(set(ids(found))) == len(found)
    assert found[0].transition == "opened"
    assert found[0].baseline_version == 5
    baseline = bench.statuses()["h"].baseline
    assert baseline is not None
    assert baseline.version == 5


def test_silence_is_blind_and_the_next_window_sees_again(bench: Bench) -> None:
    bench.apply_topics(partitions=1)
    driver = Driver()
    driver.feed(requests(np.random.default_rng(1), 64))
    records = window_records(driver.windows)
    with bench.worker(status__blind_after_s="3") as worker:
        bench.produce("interp.windows", records[:4])
        until(lambda: bench.statuses().get("h"), worker)
        assert bench.statuses()["h"].state == "learning"
        until(lambda: bench.statuses()["h"].state == "blind", worker)
        time.sleep(4)
        assert [a.transition for a in bench.alerts()] == ["blind"]
        bench.produce("interp.windows", records[4:])
        until(lambda: bench.statuses()["h"].state == "learning", worker)
        assert worker.terminate() == 0
    assert len(bench.markers()) == 1
    assert [a.transition for a in bench.alerts()] == ["blind", "seeing"]
    assert ids(bench.alerts()) == ids(pure_replay(bench)[0].alerts)


def test_an_offset_moved_to_the_logs_end_by_another_tool_loses_no_alert_and_keeps_nobody_waiting(bench: Bench) -> None:
    bench.apply_topics(partitions=1)
    driver = Driver()
    driver.feed(requests(np.random.default_rng(1), 64))
    records = window_records(driver.windows)
    with bench.worker(status__blind_after_s="3") as worker:
        bench.produce("interp.windows", records[:4])
        until(lambda: "h" in bench.statuses() and bench.statuses()["h"].state == "blind", worker)
        assert worker.terminate() == 0
    bench.produce("interp.windows", records[4:])  # nobody has told of these
    tool = consumer(consumer_config(bench.kafka, "detect"))
    at = TopicPartition(bench.prefix + "interp.windows", 0)
    _, at.offset = tool.get_watermark_offsets(at, timeout=10)
    tool.commit(offsets=[at], asynchronous=False)  # behind the mark that ends the transaction of the blind marker
    tool.close()
    before = bench.statuses()["h"].as_of_ms
    with bench.worker() as worker:
        until(lambda: bench.statuses()["h"].as_of_ms > before, worker, 40)
        assert "committed by another tool" in worker.text
        assert worker.terminate() == 0
    assert [a.transition for a in bench.alerts()] == ["blind", "seeing"]


def test_redis_has_the_status_and_loses_it_when_detect_stops(bench: Bench, redis_url: str) -> None:
    bench.apply_topics(partitions=1)
    bench.redis_url = redis_url
    model = bench.prefix + "m"
    driver = Driver(lane=Lane(model_id=model, hook_name="h", sae_fingerprint="toy"))
    driver.feed(requests(np.random.default_rng(1), 64))
    with StatusClient(redis_url) as client, bench.worker() as worker:
        bench.produce("interp.windows", window_records(driver.windows))
        until(lambda: client.get(model).state == "learning", worker)
        first = client.get(model).lanes[0]
        until(lambda: client.get(model).lanes[0].age_s < 1, worker)
        assert first.coverage.requests_seen <= 64
        worker.kill()
        deadline_s = time.monotonic() + 20
        while client.get(model).state != "unknown":
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
    with StatusClient(redis_url) as client, bench.worker() as worker:  # and has it again after a restart
        until(lambda: client.get(model).state == "learning", worker)
        assert worker.terminate() == 0


def test_two_of_the_same_instance_never_tell_anything_twice(bench: Bench) -> None:
    bench.apply_topics(partitions=2)
    rounds = list(mixed(live(lanes=2)))
    with bench.worker() as first:
        until(lambda: "replays" in first.text, first)
        for records in rounds[:40]:
            bench.produce("interp.windows", records)
        with bench.worker() as second:
            until(lambda: "replays" in second.text or first.process.poll() is not None, second)
            for records in rounds[40:]:
                bench.produce("interp.windows", records)
            time.sleep(10)
            for worker in (first, second):  # each fences the other: the work goes on, or one gives up and says so
                assert worker.process.poll() in (None, 1)
                assert worker.process.poll() is None or "same kafka.instance" in worker.text, worker.text
            assert "fenced" in first.text
    with bench.worker() as worker:
        expected = [event for t in pure_replay(bench).values() for event in ids(t.alerts)]
        until(lambda: "replays" in worker.text and len(bench.alerts()) >= len(expected), worker)
        assert worker.terminate() == 0
    assert sorted(ids(bench.alerts())) == sorted(expected)


def test_without_topics_it_says_what_to_do(bench: Bench) -> None:
    with bench.worker() as worker:
        assert worker.process.wait(60) == 2
        assert "topics apply" in worker.text


def test_without_kafka_it_names_the_address(bench: Bench) -> None:
    bench.bootstrap = "127.0.0.1:9"
    with bench.worker() as worker:
        assert worker.process.wait(60) == 5
        assert "Kafka at 127.0.0.1:9" in worker.text


def test_a_redis_that_is_not_there_is_refused_at_start(bench: Bench) -> None:
    bench.apply_topics(partitions=1)
    bench.redis_url = "redis://127.0.0.1:9/0"
    with bench.worker() as worker:
        assert worker.process.wait(60) == 5
        assert "Redis at redis://127.0.0.1:9" in worker.text


def test_a_checkpoint_older_than_the_windows_ends_it(bench: Bench) -> None:
    bench.apply_topics(partitions=1)
    driver = Driver()
    driver.feed(requests(np.random.default_rng(1), 64))
    records = window_records(driver.windows)
    with bench.worker() as worker:
        bench.produce("interp.windows", records[:4])
        until(lambda: bench.statuses().get("h"), worker)
        assert worker.terminate() == 0
    bench.produce("interp.windows", records[4:])
    bench.forget("interp.windows", below=6)
    with bench.worker() as worker:
        assert worker.process.wait(60) == 6
        assert "a checkpoint older than the windows' retention" in worker.text
