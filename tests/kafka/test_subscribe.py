"""Alerts as a consumer gets them: committed ones only, each at least once."""

from __future__ import annotations

import itertools
import time
from uuid import uuid4

import pytest
from confluent_kafka.admin import NewTopic

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.subscribe import TOPIC, AlertSubscriber, EventSubscriber
from stream_interp.records.alert import Alert, Position, encode_alert, event_id
from stream_interp.records.annotation import Annotation, encode_annotation
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0


def make_alert(k, tenant="default", model_id="credit"):
    lane, position = Lane(tenant=tenant, model_id=model_id, hook_name="layer.15"), Position(partition=0, offset=k)
    return Alert(
        event_id=event_id(lane, k, "opened", position), lane=lane, incident_id=f"i{k}", transition="opened",
        severity="critical", status="critical", cause_hint="data", at_ms=1_800_000_000_000 + k, position=position,
    )  # fmt: skip


@pytest.fixture
def kafka(kafka_bootstrap, topic_prefix):
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    name = topic_prefix + TOPIC
    admin = client.admin(kafka)
    if name not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(name, 3, 1)])[name].result(30)
    return kafka


@pytest.fixture
def producer(kafka):
    producer = client.producer(client.producer_config(kafka, transactional_id=f"t-{uuid4().hex[:8]}"))
    producer.init_transactions(30)
    return producer


@pytest.fixture
def send(kafka, producer):
    def send(*alerts, abort=False, partition=0, raw=()):
        producer.begin_transaction()
        for value in [*(encode_alert(alert).value for alert in alerts), *raw]:
            producer.produce(kafka.topic_prefix + TOPIC, value, partition=partition)
        producer.flush(30)
        (producer.abort_transaction if abort else producer.commit_transaction)(30)

    return send


@pytest.fixture
def subscribe(kafka):
    return lambda **options: AlertSubscriber(kafka.bootstrap, topic_prefix=kafka.topic_prefix, **options)


def take(subscriber, n):
    return [alert.event_id for alert in itertools.islice(subscriber, n)]


def ids(*numbers):
    return [make_alert(k).event_id for k in numbers]


def nothing_more(subscriber):
    return subscriber.poll(1.0) is None


def test_from_beginning_reads_every_partition(send, subscribe):
    for k in range(6):
        send(make_alert(k), partition=k % 3)
    with subscribe(from_beginning=True) as subscriber:
        assert sorted(take(subscriber, 6)) == sorted(ids(*range(6)))
        assert nothing_more(subscriber)


def test_alerts_are_typed_and_whole(send, subscribe):
    send(make_alert(7))
    with subscribe(from_beginning=True) as subscriber:
        assert subscriber.poll(PATIENCE_S) == make_alert(7)


def test_without_from_beginning_only_what_comes_after_the_call(send, subscribe):
    send(make_alert(0))
    with subscribe() as subscriber:
        send(make_alert(1))
        assert take(subscriber, 1) == ids(1)
        assert nothing_more(subscriber)


def test_an_open_transaction_at_the_call_is_not_missed(kafka, producer, send, subscribe):
    send(make_alert(0))
    producer.begin_transaction()
    producer.produce(kafka.topic_prefix + TOPIC, encode_alert(make_alert(1)).value, partition=0)
    producer.flush(30)
    with subscribe() as subscriber:
        producer.commit_transaction(30)
        assert take(subscriber, 1) == ids(1)


def test_aborted_alerts_are_never_seen(send, subscribe):
    send(make_alert(0), make_alert(1), abort=True)
    send(make_alert(2))
    send(make_alert(3), abort=True)
    with subscribe(from_beginning=True) as subscriber:
        assert take(subscriber, 1) == ids(2)
        assert nothing_more(subscriber)


def test_malformed_records_are_counted_and_skipped(send, subscribe, caplog):
    bad = [b"", None, b"{}", b"\xff\xfe", b"[" * 100_000, b'{"type": "x", "data": {"schema_version": 9}}']
    send(make_alert(0), raw=bad)
    send(make_alert(1))
    with subscribe(from_beginning=True) as subscriber:
        assert take(subscriber, 2) == ids(0, 1)
        assert subscriber.malformed == len(bad)
    assert sum("skipped" in record.message for record in caplog.records) == len(bad)


def test_filters_by_tenant_and_model(send, subscribe):
    send(make_alert(0), make_alert(1, tenant="bank"), make_alert(2, tenant="bank", model_id="fraud"))
    with subscribe(from_beginning=True, tenant="bank", model_id="fraud") as subscriber:
        assert subscriber.poll(PATIENCE_S) == make_alert(2, tenant="bank", model_id="fraud")


def test_a_crash_in_the_handling_brings_the_alert_again(send, subscribe):
    group = f"g-{uuid4().hex[:8]}"
    send(*(make_alert(k) for k in range(3)))

    def handle_and_crash():
        with subscribe(group=group, from_beginning=True) as subscriber:
            for alert in subscriber:
                if alert.event_id == ids(1)[0]:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handle_and_crash()
    with subscribe(group=group) as subscriber:
        assert take(subscriber, 2) == ids(1, 2), "0 was handled: the loop had asked for the next one"


def test_commit_counts_the_alert_at_hand_as_handled(send, subscribe):
    group = f"g-{uuid4().hex[:8]}"
    send(make_alert(0), make_alert(1))
    with subscribe(group=group, from_beginning=True) as subscriber:
        assert take(subscriber, 1) == ids(0)
        subscriber.commit()
        subscriber.commit()
    with subscribe(group=group) as subscriber:
        assert take(subscriber, 1) == ids(1)


def test_a_new_group_that_crashes_before_its_first_commit_loses_nothing(send, subscribe):
    group = f"g-{uuid4().hex[:8]}"
    send(make_alert(0))
    with subscribe(group=group) as subscriber:
        send(make_alert(1))
        assert take(subscriber, 1) == ids(1)  # and not handled
    send(make_alert(2))
    with subscribe(group=group) as subscriber:
        assert take(subscriber, 2) == ids(1, 2)


def test_two_members_share_the_partitions(send, subscribe):
    group = f"g-{uuid4().hex[:8]}"
    seen = []
    with subscribe(group=group, from_beginning=True) as a, subscribe(group=group, from_beginning=True) as b:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (a._consumer.assignment() and b._consumer.assignment()):
            assert time.monotonic() < deadline_s
            a.poll(0.1), b.poll(0.1)
        for k in range(9):
            send(make_alert(k), partition=k % 3)
        while len(seen) < 9 and time.monotonic() < deadline_s:
            seen += [alert.event_id for alert in (a.poll(0.1), b.poll(0.1)) if alert]
    assert sorted(seen) == sorted(ids(*range(9)))


def test_a_missing_topic_or_broker_is_said(kafka_bootstrap):
    with pytest.raises(DependencyUnreachable, match=r"nowhere\.interp\.alerts.*topics apply"):
        AlertSubscriber(kafka_bootstrap, topic_prefix="nowhere.")
    with pytest.raises(DependencyUnreachable, match=r"127\.0\.0\.1:1: .*refused"):
        AlertSubscriber("127.0.0.1:1")


def test_what_operators_said_is_skipped_in_silence_unless_asked_for(kafka, send, subscribe, caplog):
    ack = Annotation(
        event_id="a", lane=make_alert(0).lane, kind="ack", incident_id="i0", author="ada", reason="", at_ms=1
    )
    send(make_alert(0), raw=[encode_annotation(ack).value])
    send(make_alert(1))
    with subscribe(from_beginning=True) as subscriber:
        assert take(subscriber, 2) == ids(0, 1)
        assert subscriber.malformed == 0
    assert caplog.text == ""
    with EventSubscriber(kafka.bootstrap, topic_prefix=kafka.topic_prefix, from_beginning=True) as subscriber:
        assert list(itertools.islice(subscriber, 3)) == [make_alert(0), ack, make_alert(1)]
