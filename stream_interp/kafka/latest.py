"""The last value of every key of a compacted topic: incidents, statuses, deliveries as they stand now."""

from __future__ import annotations

import logging

from stream_interp.errors import IntegrityError
from stream_interp.kafka import client
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.records.envelope import Record, read_json
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)


def read_latest(kafka: KafkaSettings, topic: str, record_type: type[Record]) -> dict[str, Record]:
    """key → its newest committed record; a key whose newest record is a tombstone is absent.

    A newest record that cannot be read is left out with a warning: what stood there before is no longer true.

    Args:
        kafka: how to reach Kafka.
        topic: without `kafka.topic_prefix`.
        record_type: the struct that the topic's JSON values hold.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """
    values: dict[str, bytes] = {}
    for message in read_topic_to_end(client.consumer_config(kafka, "latest"), kafka.topic_prefix + topic):
        key, value = _text(message.key()), message.value()
        values.pop(key, None)
        if value is not None:
            values[key] = value if isinstance(value, bytes) else value.encode()
    return {key: record for key, value in values.items() if (record := _read(topic, key, value, record_type))}


def _read(topic: str, key: str, value: bytes, record_type: type[Record]) -> Record | None:
    try:
        return read_json(value, record_type)
    except IntegrityError as error:
        log.warning("%s: left out %r: %s", topic, key[:80], error)
        return None


def _text(key: str | bytes | None) -> str:
    return key if isinstance(key, str) else (key or b"").decode(errors="replace")
