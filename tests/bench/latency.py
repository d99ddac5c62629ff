"""From a window's close to a webhook receiver, at half of what this machine can take: `python -m tests.bench.latency`.

Thirty lanes whose traffic has drifted; each incident is resolved by order as soon as its first notification came, so
that the lane opens the next one. Kafka, ENCODE, DETECT, NOTIFY, the producer and the receiver share the machine and
its clock: latency = arrival at the receiver minus the window's `closed_at`.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
from msgspec import structs

from stream_interp import offline
from stream_interp import sae as saes
from stream_interp.capture import SnapshotProducer
from stream_interp.embedded.pair import EmbeddedPair
from stream_interp.kafka.client import consumer_config
from stream_interp.kafka.control import publish_controls
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import decode_event
from stream_interp.records.arrays import unpack
from stream_interp.records.control import (
    BaselineHeader,
    Order,
    ProjectorHeader,
    Versioned,
    make_control,
    make_order,
)
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane
from stream_interp.settings import DriftSettings, KafkaSettings
from tests.bench.receiver import Received, Receiver
from tests.integration.world import D_IN, TOKENS, write_activations, write_sae
from tests.workers import Worker

LANES, NOTIFICATIONS, CALIBRATION_REQUESTS = 30, 300, 6_000
MODEL = "latency"


def main() -> None:
    """Prints the quantiles; exits 1 where p99 is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bound-ms", type=float, default=1_000.0)
    bound_ms: float = parser.parse_args().bound_ms
    with tempfile.TemporaryDirectory() as folder, EmbeddedPair() as pair, Receiver() as receiver:
        kafka = KafkaSettings(bootstrap=pair.bootstrap, group_prefix="latency")
        apply_topics(kafka, {}, replication=1)
        sae = write_sae(Path(folder) / "sae")
        publish_controls(kafka, list(_baselines(sae, Path(folder))))
        with _workers(kafka, pair.redis_url, sae, Path(folder), receiver.url):
            capacity = _capacity(kafka)
            _traffic(kafka, receiver, capacity / 2)
            missing = _missing(kafka, receiver)
            firsts = _firsts(receiver)
            stages = _stages(kafka, firsts)
    lanes = {call.data["alert"]["lane"]["hook_name"] for call in firsts}
    sys.stdout.write(
        f"{len(firsts)} first notifications of {len(lanes)} lanes, {missing} opened and not told of within 30 s, at "
        f"{capacity / 2:.0f} requests/s, half of {capacity:.0f}; "
        "ms after the window's close\n"
    )
    for name, taken_ms in stages.items():
        p50, p99 = np.percentile(taken_ms, [50, 99])
        sys.stdout.write(f"  {name:<28} p50 {p50:5.0f}  p99 {p99:5.0f}  most {max(taken_ms):5.0f}\n")
    sys.exit(int(p99 > bound_ms or missing > 0 or len(firsts) < NOTIFICATIONS or len(lanes) < LANES))


def _baselines(sae: Path, folder: Path) -> Iterator[Versioned]:
    """One file's baseline, for every lane."""
    encoder = saes.load(sae)
    path = write_activations(folder / "baseline.safetensors", 1_000, seed=1)
    for k in range(LANES):
        lane = Lane(model_id=MODEL, hook_name=f"layer.{k}", sae_fingerprint=encoder.fingerprint)
        if not k:
            learnt = offline.learn(path, lane, encoder, DriftSettings(), time.time_ns() // 1_000_000)
            projector, projector_arrays = unpack(learnt.projector.body, ProjectorHeader)
            baseline, baseline_arrays = unpack(learnt.baseline.body, BaselineHeader)
        yield make_control("projector", structs.replace(projector, lane=lane), projector_arrays, "bench", "")
        yield make_control("baseline", structs.replace(baseline, lane=lane), baseline_arrays, "bench", "")


@contextmanager
def _workers(kafka: KafkaSettings, redis_url: str, sae: Path, folder: Path, url: str) -> Iterator[None]:
    secret = folder / "secret"
    secret.write_text("whsec_" + base64.b64encode(os.urandom(32)).decode())
    sink = f'[{{"name":"hook","type":"webhook","url":"{url}","secret_file":"{secret}","allow":["127.0.0.1"]}}]'
    options = {
        "detect": {"redis.url": redis_url, "drift.clock": "requests"},
        "encode": {"sites": f'[{{"sae":"{sae}"}}]'},
        "notify": {"notify.sinks": sink, "notify.flap_limit": "1000000"},
    }
    with ExitStack() as stack:
        for command, given in options.items():
            worker = Worker([command], kafka, folder, "0", given)
            stack.callback(worker.end)
        time.sleep(20)  # all have started: their start is not what is measured
        yield


def _send(kafka: KafkaSettings, requests: int, per_s: float | None, shift: float, stop: threading.Event) -> None:
    """Requests over all lanes in turn."""
    rng = np.random.default_rng(3)
    acts = rng.standard_normal((512, TOKENS, D_IN)).astype(np.float32)
    acts[:, :, : D_IN // 2] += shift
    begun_s = time.monotonic()
    with SnapshotProducer(kafka.bootstrap, model_id=MODEL) as producer:
        for k, lane in zip(range(requests), cycle(range(LANES)), strict=False):
            if per_s is not None:
                time.sleep(max(0.0, begun_s + k / per_s - time.monotonic()))
            if stop.is_set():
                return
            producer.send(f"layer.{lane}", f"{begun_s}-{k}", acts[k % len(acts)])


def _counted(kafka: KafkaSettings) -> int:
    cuts = read_topic_to_end(consumer_config(kafka, "latency"), "interp.cuts")
    return sum(n.requests for m in cuts for n in read_json(m.value(), Cut).lanes.values())  # type: ignore[arg-type]


def _capacity(kafka: KafkaSettings) -> float:
    """Requests per second from the first record to the last cut."""
    begun_s = time.monotonic()
    _send(kafka, CALIBRATION_REQUESTS, None, 0.0, threading.Event())
    while _counted(kafka) < CALIBRATION_REQUESTS:
        time.sleep(0.2)
    return CALIBRATION_REQUESTS / (time.monotonic() - begun_s)


def _traffic(kafka: KafkaSettings, receiver: Receiver, per_s: float) -> None:
    """Drifted requests until enough first notifications have come; each incident is resolved by order."""
    stop = threading.Event()
    sender = threading.Thread(target=_send, args=(kafka, 10**9, per_s, 1.5, stop))
    sender.start()
    seen, deadline_s = 0, time.monotonic() + 600
    try:
        while len(_firsts(receiver)) < NOTIFICATIONS and time.monotonic() < deadline_s:
            time.sleep(1.0)
            new, seen = receiver.received[seen:], len(receiver.received)
            if orders := [_resolve(call) for call in new if _is_first(call)]:
                publish_controls(kafka, orders)
    finally:
        stop.set()
        sender.join()


def _missing(kafka: KafkaSettings, receiver: Receiver) -> int:
    """Incidents that opened and that the receiver has not heard of: the slowest must not be left out."""
    deadline_s = time.monotonic() + 30
    while True:
        events = (
            decode_event(m.value()) for m in read_topic_to_end(consumer_config(kafka, "latency"), "interp.alerts")
        )
        opened = {e.event_id for e in events if isinstance(e, Alert) and e.transition == "opened"}
        missing = opened - {call.data["alert"]["event_id"] for call in _firsts(receiver)}
        if not missing or time.monotonic() > deadline_s:
            return len(missing)
        time.sleep(0.5)


def _stages(kafka: KafkaSettings, firsts: list[Received]) -> dict[str, list[float]]:
    """When each stage was done, ms after the window's close; the last is the one that is promised."""
    config = consumer_config(kafka, "latency")
    windows = {(m.partition(), m.offset()): m.timestamp()[1] for m in read_topic_to_end(config, "interp.windows")}
    alerts = {decode_event(m.value()).event_id: m.timestamp()[1] for m in read_topic_to_end(config, "interp.alerts")}
    told = [call.data["alert"] for call in firsts]
    return {
        "window on interp.windows": [
            windows[a["position"]["partition"], a["position"]["offset"]] - a["at_ms"] for a in told
        ],
        "alert sent to interp.alerts": [alerts[a["event_id"]] - a["at_ms"] for a in told],
        "notification at the receiver": [call.at_ms - call.data["alert"]["at_ms"] for call in firsts],
    }


def _is_first(call: Received) -> bool:
    alert = call.data.get("alert")
    return alert is not None and alert["transition"] == "opened"


def _firsts(receiver: Receiver) -> list[Received]:
    return list({call.data["story"]: call for call in reversed(receiver.received) if _is_first(call)}.values())


def _resolve(call: Received) -> Versioned:
    alert = call.data["alert"]
    lane = Lane(**alert["lane"])
    order = Order(kind="resolve", lane=lane, version=time.time_ns() // 1_000_000, incident_id=alert["incident_id"])
    return make_order(order, "bench", "the next one, please")


if __name__ == "__main__":
    main()
