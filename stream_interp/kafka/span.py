"""Reading single stretches of a topic's partitions again, a little at a time, beside whatever else a process does."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, TopicPartition

from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import raise_if_refused
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings


class SpanReader:
    """One stretch at a time, `read_committed`, without a group. It connects when it is first asked for one.

    Args:
        kafka: how to reach Kafka.
        topic: without `kafka.topic_prefix`.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._faults, self._address, self._topic = Faults(), client.address(kafka), kafka.topic_prefix + topic
        self._config = client.consumer_config(kafka, "range", offset_reset="earliest", on_error=self._faults)
        self._consumer: Consumer | None = None

    def seek(self, partition: int, offset: int) -> None:
        """From here; from the log's start where that lies behind it."""
        if self._consumer is None:
            self._consumer = client.consumer(self._config)
        self._consumer.assign([TopicPartition(self._topic, partition, max(0, offset))])

    def poll(self, max_records: int) -> list[Consumed]:
        """What is there already, in offset order; it does not wait. Raises DependencyUnreachable."""
        if self._consumer is None:
            return []
        messages = self._consumer.consume(max_records, 0)
        self._faults.raise_if_hopeless(self._address)
        records = []
        for message in messages:
            if (error := message.error()) is None:
                records.append(consumed(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise_if_refused(error, self._topic, self._address)
        return records

    def close(self) -> None:
        """Ends it."""
        if self._consumer is not None:
            self._consumer.close()
