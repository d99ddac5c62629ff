"""Reading a topic to its end where offsets have holes: compaction, aborted transactions, control markers."""

from __future__ import annotations

import time
from types import SimpleNamespace
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.read import end_offsets, read_topic_to_end
from stream_interp.settings import KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(kafka_bootstrap):
    return KafkaSettings(bootstrap=kafka_bootstrap)


@pytest.fixture
def topic(kafka, topic_prefix):
    return lambda name="log", partitions=1, **config: create(kafka, topic_prefix + name, partitions, config)


def create(kafka, name, partitions, config):
    new = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
    admin = client.admin(kafka)
    admin.create_topics([new])[name].result(30)
    return name


def config_of(kafka):
    return client.consumer_config(kafka, "reader")


def values(kafka, name, **options):
    return [message.value() for message in read_topic_to_end(config_of(kafka), name, **options)]


def transactional(kafka, transactional_id=""):
    producer = client.producer(
        client.producer_config(kafka, transactional_id=transactional_id or f"t-{uuid4().hex[:8]}")
    )
    producer.init_transactions(30)
    return producer


def write(producer, name, texts, *, end, partition=0):
    producer.begin_transaction()
    for text in texts:
        producer.produce(name, text, partition=partition)
    producer.flush(30)
    if end == "commit":
        producer.commit_transaction(30)
    elif end == "abort":
        producer.abort_transaction(30)


def test_an_empty_topic_ends_at_once(kafka, topic):
    assert values(kafka, topic(partitions=3)) == []


def test_all_partitions_or_given_ones(kafka, topic):
    name, producer = topic(partitions=3), client.producer(client.producer_config(kafka))
    for k in range(300):
        producer.produce(name, str(k), partition=k % 3)
    producer.flush(30)
    assert sorted(map(int, values(kafka, name))) == list(range(300))
    assert [int(v) for v in values(kafka, name, partitions=[1])] == list(range(1, 300, 3))


def test_an_aborted_transaction_at_the_end_of_the_log(kafka, topic):
    name, producer = topic(), transactional(kafka)
    write(producer, name, ["a", "b"], end="commit")
    write(producer, name, ["never"] * 5, end="abort")
    assert values(kafka, name) == [b"a", b"b"]


def test_a_log_of_nothing_but_aborted_records(kafka, topic):
    name = topic()
    write(transactional(kafka), name, ["never"] * 5, end="abort")
    assert values(kafka, name) == []


def test_an_open_transaction_is_not_waited_for(kafka, topic):
    name, producer = topic(), transactional(kafka)
    write(producer, name, ["a"], end="commit")
    write(producer, name, ["pending"], end="open")
    started_s = time.monotonic()
    assert values(kafka, name) == [b"a"]
    assert time.monotonic() - started_s < 5
    producer.commit_transaction(30)
    assert values(kafka, name) == [b"a", b"pending"]


def test_holes_left_by_compaction(kafka, topic):
    name = topic(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001", max_compaction_lag_ms="200",
        delete_retention_ms="0",
    )  # fmt: skip
    producer = client.producer(client.producer_config(kafka))
    for k in range(200):
        producer.produce(name, str(k), key=str(k % 2))
        if k % 20 == 0:
            producer.flush(30)
            time.sleep(0.02)
    producer.produce(name, None, key="0")
    producer.flush(30)
    for wait in range(100):  # each further record rolls a segment, which lets the broker compact those before
        producer.produce(name, "x", key=f"roll-{wait % 2}")
        producer.flush(30)
        messages = list(read_topic_to_end(config_of(kafka), name))
        if len(messages) < 20:
            break
        time.sleep(0.5)
    assert len(messages) < 20, "the broker did not compact within a minute"
    latest = {message.key(): message.value() for message in messages}
    assert latest[b"1"] == b"199"
    assert latest.get(b"0") is None
    assert latest[f"roll-{wait % 2}".encode()] == b"x"


def test_records_that_come_while_reading_are_not_waited_for(kafka, topic):
    name, producer = topic(), client.producer(client.producer_config(kafka))
    producer.produce(name, "0")
    producer.flush(30)
    seen = []
    for message in read_topic_to_end(config_of(kafka), name):
        seen.append(message.value())
        producer.produce(name, str(len(seen)))
        producer.flush(30)
    assert seen == [b"0"]


def test_a_missing_topic_names_it_and_the_command(kafka, topic_prefix):
    with pytest.raises(DependencyUnreachable, match=rf"{topic_prefix}nothing.*topics apply"):
        values(kafka, topic_prefix + "nothing")


def test_a_missing_broker_is_unreachable():
    with pytest.raises(DependencyUnreachable, match=r"127\.0\.0\.1:1"):
        list(read_topic_to_end(config_of(KafkaSettings(bootstrap="127.0.0.1:1")), "any"))


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_a_partition_that_has_no_leader_yet_is_waited_for(code):
    class Fresh:
        """A consumer of a topic that was made this moment."""

        refusals = 2

        def list_topics(self, topic, timeout):
            return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

        def get_watermark_offsets(self, at, timeout):
            self.refusals -= 1
            if self.refusals >= 0:
                raise KafkaException(KafkaError(code))
            return 0, 7

    assert end_offsets(Fresh(), "fresh", Faults(), "127.0.0.1:1") == {0: 7}
