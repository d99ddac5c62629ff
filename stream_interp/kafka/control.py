"""`interp.control` as a whole: publishing a version, and reading every version that is complete."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable

from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.kafka import client
from stream_interp.kafka.follow import TopicFollower
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.transactions import Transactions
from stream_interp.records.control import ControlReader, Versioned, encode_control, is_ahead
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

TOPIC = "interp.control"
_VERSION_DIGITS = 15  # of Unix epoch ms; more are no version


def publish_controls(kafka: KafkaSettings, records: Iterable[Versioned]) -> None:
    """Writes versions so that readers see all of them or none.

    Raises:
        DependencyUnreachable: Kafka does not answer.
        TransactionAborted: Kafka refused a record.
    """
    once = structs.replace(kafka, instance=uuid.uuid4().hex[:12])  # a command line, not a stable member of a group
    transactions = Transactions(once, "control")
    try:
        with transactions.open() as transaction:
            for record in records:
                for envelope in encode_control(record):
                    transaction.send(TOPIC, envelope)
    finally:
        transactions.close()


def read_controls(kafka: KafkaSettings) -> list[Versioned]:
    """Every complete version on the topic, in log order; what cannot be read is left out with a warning.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """
    follower, reader, whole = TopicFollower(kafka, TOPIC), ControlReader(), list[Versioned]()
    try:
        for record in follower.to_end():
            try:
                version = reader.add((record.key or b"").decode(), record.value, record.timestamp_ms)
            except (IntegrityError, UnicodeDecodeError) as error:
                log.warning("%s: left out offset %s: %s", TOPIC, record.offset, error)
                continue
            whole += [version] if version is not None else []
        return whole
    finally:
        follower.close()


def newest_version(kafka: KafkaSettings, lane_id: str) -> int:
    """The largest version that any control record of a lane has, 0 without one. Raises DependencyUnreachable."""
    newest = 0
    for message in read_topic_to_end(client.consumer_config(kafka, "control"), kafka.topic_prefix + TOPIC):
        _, lane, version, *_ = [*(message.key() or b"").decode(errors="replace").split("/"), "", "", ""]
        if lane != lane_id or not version.isdecimal() or len(version) > _VERSION_DIGITS:
            continue
        if not is_ahead(int(version), consumed(message).timestamp_ms):
            newest = max(newest, int(version))
    return newest
