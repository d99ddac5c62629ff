"""Following a small topic from its beginning: all of it at the start, then what is new."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import end_offsets, raise_if_refused
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings

STALL_S = 30.0
_BATCH = 500


class TopicFollower:
    """All partitions of a topic, `read_committed`, without a group.

    Args:
        kafka: how to reach Kafka.
        topic: without `kafka.topic_prefix`.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._faults, self._address, self._topic = Faults(), client.address(kafka), kafka.topic_prefix + topic
        config = client.consumer_config(
            kafka, "follow", offset_reset="earliest", on_error=self._faults, enable_partition_eof=True
        )
        self._consumer = client.consumer(config)
        ends = end_offsets(self._consumer, self._topic, self._faults, self._address)
        self._unread = set(ends)
        self._consumer.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in ends])

    @property
    def at_end(self) -> bool:
        """Everything that was there at the start has been polled."""
        return not self._unread

    def to_end(self) -> list[Consumed]:
        """Everything that is there now; waits for it. Raises DependencyUnreachable."""
        records, deadline_s = list[Consumed](), time.monotonic() + STALL_S
        while self._unread:
            new = self.poll(0.1)
            records += new
            if new:
                deadline_s = time.monotonic() + STALL_S
            if time.monotonic() > deadline_s:
                raise DependencyUnreachable("Kafka", self._address, *self._faults.explain())
        return records

    def poll(self, timeout_s: float = 0.0) -> list[Consumed]:
        """What is new. Raises DependencyUnreachable."""
        messages = self._consumer.consume(_BATCH, timeout_s)
        self._faults.raise_if_hopeless(self._address)
        return [consumed(message) for message in messages if self._is_record(message)]

    def close(self) -> None:
        """Ends it."""
        self._consumer.close()

    def _is_record(self, message: Message) -> bool:
        error, partition = message.error(), message.partition()
        if error is None:
            return True
        if error.code() != KafkaError._PARTITION_EOF:
            raise_if_refused(error, self._topic, self._address)
        elif partition is not None:
            self._unread.discard(partition)
        return False
