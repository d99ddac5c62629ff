"""One member of a consumer group on one topic: partitions come and go, each starts where its last commit says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream_interp.errors import DependencyUnreachable, IntegrityError, StreamInterpError
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import end_offsets, raise_if_refused
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # an offset commit inside a dead member's transaction is readable after 15 s at most
_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}


class Assigned(NamedTuple):
    """A partition that becomes ours, or is ours again after an abort.

    Attributes:
        offset: the committed one, None at the very first start.
        metadata: that was committed with it.
        low, high: the log begins and ends there now.
    """

    partition: int
    offset: int | None
    metadata: str
    low: int
    high: int


class GroupReader:
    """Reads one topic as a member of a group (cooperative-sticky, so that a rebalance stops only what moves).

    It joins at the first poll: a member that does not poll holds up everyone's rebalances, and one that is given up
    without `close` would wait for ever for its own.

    Args:
        kafka: how to reach Kafka.
        group: suffix of the group id.
        topic: without `kafka.topic_prefix`.
        on_start: given an assigned partition, returns the offset at which to read.
        on_stop: the partition is no longer ours, or is about to start again: forget its state, commit nothing.

    Raises:
        UsageError: a setting that librdkafka does not know.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topic: str,
        on_start: Callable[[Assigned], int],
        on_stop: Callable[[int], None],
    ) -> None:
        self._address, self._topic, self._faults = client.address(kafka), kafka.topic_prefix + topic, Faults()
        self._on_start, self._on_stop = on_start, on_stop
        self._starts: dict[int, int] = {}  # our partitions → where they started
        self._fresh: set[int] = set()  # started during the poll that is going on
        self._read_to_end: set[int] = set()
        self._at_end: set[int] = set()
        self.assigned = False  # the group has given us our share, which may be nothing
        self._joined = False
        config = client.consumer_config(kafka, group, on_error=self._faults, enable_partition_eof=True)
        if "group.protocol" not in kafka.librdkafka:
            config.setdefault("partition.assignment.strategy", "cooperative-sticky")
        self.consumer: Consumer = client.consumer(config)

    @property
    def partitions(self) -> list[int]:
        """Ours, now."""
        return sorted(self._starts)

    def has_reached_end(self, partition: int) -> bool:
        """Everything that was in the log when the partition became ours has been read, and whatever came after once."""
        return partition in self._read_to_end

    def is_at_end(self, partition: int) -> bool:
        """The last thing that Kafka told of the partition is that there is no more."""
        return partition in self._at_end

    def lags(self) -> dict[int, int | None]:
        """Offsets between what was read and the log's end, by partition; the end marker of a transaction is one too.

        The ends are those of the last answer to a fetch (None: not known yet); the broker is not asked.
        """
        found: dict[int, int | None] = {}
        for at in self.consumer.position([TopicPartition(self._topic, p) for p in self._starts]):
            _, high = self.consumer.get_watermark_offsets(at, cached=True)
            position = at.offset if at.offset >= 0 else self._starts[at.partition]
            found[at.partition] = max(0, high - position) if high >= 0 else None
        return found

    def count_partitions(self) -> int:
        """Of the topic. Raises DependencyUnreachable."""
        return len(end_offsets(self.consumer, self._topic, self._faults, self._address))

    def poll(self, max_records: int, timeout_s: float) -> list[Consumed]:
        """The next records of our partitions, in offset order within each; `on_start` and `on_stop` are called in here.

        Raises:
            DependencyUnreachable: Kafka refuses us.
            StreamInterpError: this member cannot go on.
        """
        if not self._joined:
            self.consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)
            self._joined = True
        self._fresh.clear()
        messages = self.consumer.consume(1, timeout_s)  # which waits until it has all that it is asked for
        messages += self.consumer.consume(max_records - 1, 0) if messages and max_records > 1 else []
        self._faults.raise_if_hopeless(self._address)
        records = []
        for message in messages:
            if (error := message.error()) is not None:
                self._take_error(error, message.partition())
            elif message.partition() in self._starts and message.partition() not in self._fresh:
                self._at_end.discard(message.partition())
                records.append(consumed(message))
        # A batch may hold records from before a partition went and came back: read those partitions anew.
        for partition in self._fresh & {m.partition() for m in messages} & set(self._starts):
            self._seek(partition)
        return records

    def restart(self, partitions: Iterable[int] | None = None) -> None:
        """After an abort: our partitions (or some) start again from what is committed."""
        wanted = self.partitions if partitions is None else list(partitions)
        for partition in wanted:
            self._forget_ends(partition)
            self._on_stop(partition)
        for assigned in self._committed(wanted):
            self._starts[assigned.partition] = self._on_start(assigned)
            self._seek(assigned.partition)

    def close(self) -> None:
        """Leaves the group."""
        self.consumer.close()

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = {a.partition: self._on_start(a) for a in self._committed([p.partition for p in partitions])}
        self._starts |= starts
        self._fresh |= starts.keys()
        self.assigned = True
        consumer.incremental_assign([TopicPartition(self._topic, p, at) for p, at in starts.items()])

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            self._starts.pop(p.partition, None)
            self._forget_ends(p.partition)
            self._on_stop(p.partition)

    def _committed(self, partitions: list[int]) -> list[Assigned]:
        if not partitions:
            return []
        at = [TopicPartition(self._topic, p) for p in partitions]
        try:
            committed = self.consumer.committed(at, timeout=_TIMEOUT_S)
            return [self._assigned(p) for p in committed]
        except KafkaException as error:
            found = f"committed offsets of {self._topic}: {error.args[0].str()}"
            raise DependencyUnreachable("Kafka", self._address, found, "Is it still running?") from error

    def _assigned(self, committed: TopicPartition) -> Assigned:
        low, high = self.consumer.get_watermark_offsets(committed, timeout=_TIMEOUT_S)
        offset = committed.offset if committed.offset >= 0 else None
        if offset is not None and offset > high:
            raise IntegrityError(
                f"{self._topic}/{committed.partition}: offset {offset} is committed but the log ends at {high}; the "
                "topic was deleted and made again. Delete the consumer group, or use another kafka.group_prefix"
            )
        return Assigned(committed.partition, offset, committed.metadata or "", low, high)

    def _forget_ends(self, partition: int) -> None:
        self._read_to_end.discard(partition)
        self._at_end.discard(partition)

    def _seek(self, partition: int) -> None:
        self.consumer.seek(TopicPartition(self._topic, partition, self._starts[partition]))

    def _take_error(self, error: KafkaError, partition: int | None) -> None:
        if error.code() in _OUT_OF_RANGE and partition is not None:
            where = {"topic": self._topic, "partition": partition}
            log.warning(
                "%s/%s: %s; starting again from the log's start", self._topic, partition, error.str(), extra=where
            )
            self.restart([partition])
        elif error.fatal():
            raise StreamInterpError(f"Kafka at {self._address} ended our membership: {error.str()}; start again")
        elif error.code() != KafkaError._PARTITION_EOF:
            raise_if_refused(error, self._topic, self._address)
            where = {"topic": self._topic, "partition": partition}
            log.warning("%s: %s; going on", self._topic, error.str(), extra=where)
        elif partition in self._starts and partition not in self._fresh:
            self._read_to_end.add(partition)
            self._at_end.add(partition)
