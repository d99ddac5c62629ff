"""Reading one record whose place is known."""

from __future__ import annotations

import time

from confluent_kafka import TopicPartition

from stream_interp.errors import IntegrityError
from stream_interp.kafka import client
from stream_interp.kafka.messages import consumed
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings

WAIT_S = 30.0  # a transaction's marker may reach this topic a little after the group's offset


def read_record(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> Consumed:
    """The committed record at this place. `topic` is without `kafka.topic_prefix`.

    Raises:
        IntegrityError: it is not there.
    """
    name = kafka.topic_prefix + topic
    consumer = client.consumer(client.consumer_config(kafka, "lookup"))
    deadline_s = time.monotonic() + WAIT_S
    try:
        consumer.assign([TopicPartition(name, partition, offset)])
        while time.monotonic() < deadline_s:
            message = consumer.poll(0.2)
            if message is not None:
                if message.error() is None and message.offset() == offset:
                    return consumed(message)
                break
    finally:
        consumer.close()
    raise IntegrityError(f"no record at {name}/{partition} offset {offset}; has its retention passed?")
