"""Reading a part of a topic, by offsets or by time, once: for commands that look back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import KafkaException, TopicPartition

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import end_offsets, read_topic_to_end
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings

_WAIT_S = 30.0
_GROUP = "range"


class LogRange(NamedTuple):
    """The first offset that a partition still has, and the one behind its last."""

    low: int
    high: int


def log_range(kafka: KafkaSettings, topic: str, partition: int) -> LogRange:
    """Where the log of a partition begins and ends now. Raises DependencyUnreachable."""
    name, faults = kafka.topic_prefix + topic, Faults(log_every_s=None)
    consumer = client.consumer(client.consumer_config(kafka, _GROUP, on_error=faults))
    try:
        end_offsets(consumer, name, faults, client.address(kafka), [partition])
        return LogRange(*consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=_WAIT_S))
    except KafkaException as error:
        raise DependencyUnreachable("Kafka", client.address(kafka), *faults.explain()) from error
    finally:
        consumer.close()


def read_range(kafka: KafkaSettings, topic: str, partition: int, first: int = 0) -> Iterator[Consumed]:
    """The committed records of a partition from an offset to the end. Raises DependencyUnreachable."""
    config = client.consumer_config(kafka, _GROUP)
    name = kafka.topic_prefix + topic
    yield from map(consumed, read_topic_to_end(config, name, [partition], starts={partition: first}))


def read_between(kafka: KafkaSettings, topic: str, since_ms: int, until_ms: int | None = None) -> Iterator[Consumed]:
    """The committed records of all partitions whose timestamps lie between, Unix epoch ms; None for the end.

    Timestamps of a partition may fall a little: choose the bounds with room to spare.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """
    starts = _offsets_at(kafka, topic, since_ms)
    config = client.consumer_config(kafka, _GROUP)
    for message in read_topic_to_end(config, kafka.topic_prefix + topic, starts=starts):
        record = consumed(message)
        if until_ms is None or record.timestamp_ms <= until_ms:
            yield record


def _offsets_at(kafka: KafkaSettings, topic: str, since_ms: int) -> dict[int, int]:
    """partition → offset of its first record from then on, or its end."""
    name, faults = kafka.topic_prefix + topic, Faults(log_every_s=None)
    consumer = client.consumer(client.consumer_config(kafka, _GROUP, on_error=faults))
    try:
        ends = end_offsets(consumer, name, faults, client.address(kafka))
        asked = [TopicPartition(name, p, max(0, since_ms)) for p in ends]
        found = consumer.offsets_for_times(asked, timeout=_WAIT_S) if asked else []
        return {at.partition: at.offset if at.offset >= 0 else ends[at.partition] for at in found}
    except KafkaException as error:
        raise DependencyUnreachable("Kafka", client.address(kafka), *faults.explain()) from error
    finally:
        consumer.close()
