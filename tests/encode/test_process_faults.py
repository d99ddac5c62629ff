"""ENCODE in a thread on a real Kafka: fenced, cut off from what it had to read, given a projector while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
from confluent_kafka import TopicPartition

from stream_interp.encode.process import Encode
from stream_interp.kafka.client import admin
from stream_interp.kafka.control import publish_controls
from stream_interp.kafka.transactions import Transactions
from stream_interp.records.control import ProjectorHeader, make_control
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.settings import Settings, SiteSettings, WindowSettings
from tests.encode.test_process import HOOKS, check_tiling, recomputed, snapshots, summed
from tests.encode.workers import D_IN, D_SAE, Bench


def settings_of(bench: Bench, **more) -> Settings:
    fast = WindowSettings(min_age_s=0.1, max_age_s=0.5)
    site = SiteSettings(sae=bench.options["sae"])
    return Settings(kafka=bench.kafka, window=fast, sites=[site], **more)


@contextmanager
def running(settings: Settings) -> Iterator[list[str]]:
    said: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            Encode(settings, said.append).run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(60)
        assert failures == []


def wait(bench: Bench, records: int, timeout_s: float = 40.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while bench.covered() < records:
        assert time.monotonic() < deadline_s, f"{bench.covered()} of {records}"
        time.sleep(0.2)


def test_a_fenced_worker_starts_again_from_what_is_committed(bench):
    bench.apply_topics(3)
    first, second, third = (snapshots(150, seed=s, name=f"s{s}-") for s in range(3))
    bench.produce("interp.activations", first)
    with running(settings_of(bench)):
        wait(bench, len(first))
        fence = Transactions(bench.kafka, "encode")  # the same instance: the worker's next transaction fails
        bench.produce("interp.activations", second)
        wait(bench, len(first) + len(second))
        fence.close()
        bench.produce("interp.activations", third)
        wait(bench, len(first) + len(second) + len(third))
    windows = bench.windows()
    check_tiling(bench, windows)
    assert summed(windows) == recomputed(bench)


def test_what_retention_took_before_it_was_read_is_in_the_next_cut(bench):
    bench.apply_topics(1)
    one, two, three = (snapshots(50, seed=s, name=f"s{s}-") for s in range(3))
    bench.produce("interp.activations", one)
    with running(settings_of(bench)):
        wait(bench, len(one))
    bench.produce("interp.activations", two)
    low = len(one) + 100
    place = TopicPartition(bench.prefix + "interp.activations", 0, low)
    client = admin(bench.kafka)
    for future in client.delete_records([place]).values():
        future.result(30)
    bench.produce("interp.activations", three)
    with running(settings_of(bench)):
        wait(bench, len(one) + len(two) + len(three))
    (cuts,) = bench.cuts().values()
    assert [c.a for c in cuts[1:]] == [c.b for c in cuts[:-1]]
    assert sum(c.not_counted.get("expired", 0) for c in cuts) == 100
    assert cuts[-1].b == len(one) + len(two) + len(three)


def request(i: int):
    acts = np.full((4, D_IN), 3, np.float16)
    return encode_snapshot(Snapshot(model_id="m", hook_name=HOOKS[0], request_id=f"r{i}", acts=acts,
                                    acts_dtype="float16", request_tokens=4), 0)  # fmt: skip


def projector(lane: Lane, d_in: int):
    header = ProjectorHeader(lane=lane, version=7, unit_tokens=2, d_in=d_in, d_sae=D_SAE, fit_requests=10,
                             fit_tokens=40, shrinkage=0.0, kept_directions=d_in)  # fmt: skip
    arrays = {"mean": np.zeros(d_in, np.float32), "whitening": np.eye(d_in, dtype=np.float32),
              "cap": np.ones(D_SAE, np.float32)}  # fmt: skip
    return make_control("projector", header, arrays, "test", "test")


def test_a_projector_of_other_widths_loses_no_request(bench, caplog):
    bench.apply_topics(1)
    slow = msgspec.structs.replace(settings_of(bench), window=WindowSettings(max_age_s=3.0))
    bench.produce("interp.activations", [request(i) for i in range(10)])
    with running(slow):
        wait(bench, 10)
        lane = bench.windows()[0].header.lane
        bench.produce("interp.activations", [request(i) for i in range(10, 15)])
        time.sleep(1.0)  # taken, in a window that is not due yet
        publish_controls(bench.kafka, [projector(lane, D_IN + 1)])
        while "record not used" not in caplog.text:
            time.sleep(0.1)
        bench.produce("interp.activations", [request(i) for i in range(15, 20)])
        wait(bench, 20)
    assert sum(w.header.requests for w in bench.windows()) == 20


def test_a_projector_takes_effect_between_two_cuts(bench):
    bench.apply_topics(1)
    slow = msgspec.structs.replace(settings_of(bench), window=WindowSettings(max_age_s=3.0))
    bench.produce("interp.activations", [request(i) for i in range(10)])
    with running(slow) as said:
        wait(bench, 10)
        lane = bench.windows()[0].header.lane
        bench.produce("interp.activations", [request(i) for i in range(10, 15)])
        time.sleep(1.0)  # taken, in a window that is not due yet
        publish_controls(bench.kafka, [projector(lane, D_IN)])
        while not any("projector 7" in line for line in said):
            time.sleep(0.1)
        bench.produce("interp.activations", [request(i) for i in range(15, 20)])
        wait(bench, 20)
    by_version = {v: sum(w.header.requests for w in bench.windows() if w.header.projector_version == v) for v in (0, 7)}
    assert by_version == {0: 15, 7: 5}
    (calibrated,) = [w for w in bench.windows() if w.header.projector_version == 7]
    assert calibrated.header.unit_tokens == 2
    np.testing.assert_allclose(calibrated.arrays["request_scores"][:, 1], 9.0 * D_IN)
    with running(slow):  # a restart knows it before it reads the first activation
        bench.produce("interp.activations", [request(20)])
        wait(bench, 21)
    assert bench.windows()[-1].header.projector_version == 7
