"""The subscriber when processes die: its own, and the broker."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from uuid import uuid4

import pytest
from confluent_kafka.admin import NewTopic

from stream_interp.embedded import EmbeddedKafka
from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client, subscribe
from stream_interp.kafka.subscribe import TOPIC, AlertSubscriber
from stream_interp.records.alert import Alert, Position, encode_alert
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings

pytestmark = pytest.mark.integration

TAKE_TWO_AND_DIE = """
import os, signal, sys
from stream_interp.kafka.subscribe import AlertSubscriber
bootstrap, prefix, group = sys.argv[1:]
for k, alert in enumerate(AlertSubscriber(bootstrap, group=group, topic_prefix=prefix, from_beginning=True)):
    if k == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def create(kafka):
    admin, name = client.admin(kafka), kafka.topic_prefix + TOPIC
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def send(kafka, *numbers):
    producer = client.producer(client.producer_config(kafka))
    for k in numbers:
        lane = Lane(model_id="credit", hook_name="layer.15")
        alert = Alert(
            event_id=f"e{k}", lane=lane, incident_id="i", transition="opened", severity="warning", status="warning",
            cause_hint="", at_ms=0, position=Position(partition=0, offset=k),
        )  # fmt: skip
        producer.produce(kafka.topic_prefix + TOPIC, encode_alert(alert).value)
    assert producer.flush(60) == 0


def next_ids(subscriber, n, patience_s=60.0):
    ids, deadline_s = [], time.monotonic() + patience_s
    while len(ids) < n and time.monotonic() < deadline_s:
        alert = subscriber.poll(0.5)
        ids += [alert.event_id] if alert else []
    return ids


def test_killed_while_it_handles_an_alert_the_alert_comes_again(kafka_bootstrap, topic_prefix):
    kafka, group = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix), f"g-{uuid4().hex[:8]}"
    create(kafka)
    send(kafka, 0, 1, 2)
    child = [sys.executable, "-c", TAKE_TWO_AND_DIE, kafka_bootstrap, topic_prefix, group]
    assert subprocess.run(child, timeout=60).returncode == -signal.SIGKILL
    with AlertSubscriber(kafka_bootstrap, group=group, topic_prefix=topic_prefix) as successor:
        ids = next_ids(successor, 2)
        ids += next_ids(successor, 1, patience_s=2.0)
    assert ids[-2:] == ["e1", "e2"], "e1 was in hand; e0 may come again, too"


@pytest.fixture
def own_kafka():
    with EmbeddedKafka() as server:
        yield server, KafkaSettings(bootstrap=server.bootstrap)


def test_a_broker_killed_and_restarted_costs_no_alert(own_kafka):
    server, kafka = own_kafka
    create(kafka)
    send(kafka, 0)
    with AlertSubscriber(kafka.bootstrap, from_beginning=True) as subscriber:
        assert next_ids(subscriber, 1) == ["e0"]
        server.kill()
        assert subscriber.poll(3.0) is None
        server.restart()
        send(kafka, 1)
        assert next_ids(subscriber, 1) == ["e1"]


def test_a_broker_that_stays_away_is_said(own_kafka, monkeypatch):
    server, kafka = own_kafka
    create(kafka)
    monkeypatch.setattr(subscribe, "UNREACHABLE_AFTER_S", 4.0)
    with AlertSubscriber(kafka.bootstrap) as subscriber:
        server.kill()
        with pytest.raises(DependencyUnreachable, match=kafka.bootstrap):
            next_ids(subscriber, 1)
