"""NOTIFY as a process, on a real Kafka."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from stream_interp.kafka.client import producer_config
from stream_interp.records.alert import Alert, encode_alert
from stream_interp.records.lane import Lane
from tests.notify.alerts import alert
from tests.notify.bench import Bench, Receiver, receiver
from tests.workers import Worker, until


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    bench = Bench(kafka_bootstrap, topic_prefix, tmp_path)
    bench.apply_topics()
    return bench


def now_alert(number: int, transition: str = "opened", **more: object) -> Alert:
    """Of a lane of its own, now."""
    lane = Lane(model_id=f"m{number}", hook_name="h")
    return alert(transition, f"incident{number}", at_s=time.time() - 1_800_000_000, lane=lane, **more)


def ready(worker: Worker) -> bool:
    return "records read in" in worker.text


def latencies_s(hook: Receiver, sent_s: dict[str, float]) -> list[float]:
    return sorted(call.at_s - sent_s[call.webhook_id] for call in hook.calls if call.webhook_id in sent_s)


def test_first_notifications_reach_a_webhook_at_once(bench: Bench) -> None:
    with receiver() as hook, bench.worker(bench.sinks(hook)) as worker:
        until(lambda: ready(worker), worker)
        sent_s, sender = {}, Producer(producer_config(bench.kafka, transactional_id=bench.prefix + "t"))
        sender.init_transactions()
        for number in range(60):
            one = now_alert(number)
            envelope = encode_alert(one)
            sender.begin_transaction()
            sender.produce(bench.prefix + "interp.alerts", key=envelope.key, value=envelope.value)
            sender.flush()
            sent_s[one.event_id] = time.time()
            sender.commit_transaction()
            time.sleep(0.05)
        until(lambda: len(hook.calls) >= 60, worker, 20)
    found = latencies_s(hook, sent_s)
    print(f"append to receiver: median {found[30]:.3f} s, worst {found[-1]:.3f} s")
    assert len(found) == 60
    assert found[-2] <= 0.5
