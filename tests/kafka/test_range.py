"""Reading a part of a topic by offsets or by time."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.range import log_range, read_between, read_range
from stream_interp.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)


def topic(kafka: KafkaSettings, values: list[bytes], times: list[int] | None = None) -> str:
    """`log`, with these values in partition 1 of 2."""
    name = kafka.topic_prefix + "log"
    admin = client.admin(kafka)  # its futures end only while it lives
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    producer = client.producer(client.producer_config(kafka))
    for k, value in enumerate(values):
        producer.produce(name, value, partition=1, timestamp=times[k] if times else 0)
    assert producer.flush(30) == 0
    return "log"


def test_from_an_offset_to_the_end(kafka: KafkaSettings) -> None:
    log = topic(kafka, [b"a", b"b", b"c", b"d"])
    assert [r.value for r in read_range(kafka, log, 1, 2)] == [b"c", b"d"]
    assert [r.offset for r in read_range(kafka, log, 1)] == [0, 1, 2, 3]
    assert list(read_range(kafka, log, 1, 4)) == []
    assert list(read_range(kafka, log, 1, 99)) == []
    assert list(read_range(kafka, log, 0)) == []
    assert log_range(kafka, log, 1) == (0, 4)
    admin = client.admin(kafka)
    for future in admin.delete_records([TopicPartition(kafka.topic_prefix + log, 1, 3)]).values():
        future.result(timeout=30)
    assert log_range(kafka, log, 1) == (3, 4)
    assert [r.value for r in read_range(kafka, log, 1, 1)] == [b"d"]


def test_between_two_times(kafka: KafkaSettings) -> None:
    now_ms = time.time_ns() // 1_000_000
    log = topic(kafka, [b"a", b"b", b"c"], [now_ms - 3_000, now_ms - 2_000, now_ms - 1_000])
    assert [r.value for r in read_between(kafka, log, now_ms - 2_500)] == [b"b", b"c"]
    assert [r.value for r in read_between(kafka, log, 0, now_ms - 2_000)] == [b"a", b"b"]
    assert list(read_between(kafka, log, now_ms)) == []
    assert len(list(read_between(kafka, log, -5))) == 3


def test_nobody_there() -> None:
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1")
    with pytest.raises(DependencyUnreachable):
        log_range(nowhere, "log", 0)
    with pytest.raises(DependencyUnreachable):
        list(read_between(nowhere, "log", 0))
