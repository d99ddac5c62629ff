"""`interp.control` as a whole: publishing a version, and reading every version that is complete."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from msgspec import structs

from stream_interp.kafka.follow import TopicFollower
from stream_interp.kafka.transactions import Transactions
from stream_interp.records.control import ControlReader, Versioned, encode_control
from stream_interp.settings import KafkaSettings

TOPIC = "interp.control"


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
    """Every complete version on the topic, in log order. Raises DependencyUnreachable."""
    follower, reader = TopicFollower(kafka, TOPIC), ControlReader()
    try:
        whole = (reader.add((m.key or b"").decode(), m.value) for m in follower.to_end())
        return [record for record in whole if record is not None]
    finally:
        follower.close()
