"""Reading a topic from its beginning to its end, once: control records, states, statuses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults

STALL_S = 30.0
_START_S = 5.0  # for a broker that may still be starting; a refused login fails at once
_ATTEMPT_S = 0.5
_POLL_S = 0.2


def read_topic_to_end(
    config: Mapping[str, object],
    topic: str,
    partitions: Sequence[int] | None = None,
    *,
    starts: Mapping[int, int] | None = None,
    stall_s: float = STALL_S,
) -> Iterator[Message]:
    """Every committed record, in offset order within each partition, up to the ends found at the first step.

    It ends at the last stable offset: an open transaction and what lies behind it are not waited for. Offsets are
    positions, never counts: compacted, aborted and control records leave holes, also at the very end.

    Args:
        config: from `client.consumer_config`; its group is neither joined nor committed to.
        topic: whole name, with the prefix.
        partitions: None for all.
        starts: first offsets by partition; where none is given, or it is no more, the log's start.
        stall_s: give up after so long without a record from Kafka.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """
    faults, address = Faults(log_every_s=None), str(config["bootstrap.servers"])
    forced = {
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "error_cb": faults,
    }
    consumer = client.consumer({**config, **forced})
    try:
        ends = end_offsets(consumer, topic, faults, address, partitions)
        begins = {p: (starts or {}).get(p, OFFSET_BEGINNING) for p in ends}
        ends = {p: end for p, end in ends.items() if begins[p] < end}  # else there is nothing, not even an end, to read
        consumer.assign([TopicPartition(topic, p, begins[p]) for p in ends])
        yield from _until(consumer, topic, ends, faults, address, stall_s)
    finally:
        consumer.close()


def end_offsets(
    consumer: Consumer, topic: str, faults: Faults, address: str, partitions: Sequence[int] | None = None
) -> dict[int, int]:
    """partition → its last stable offset now (`read_committed`).

    Raises:
        DependencyUnreachable: Kafka does not answer within 5 s, refuses us, or has no such topic.
    """
    try:
        known = _metadata(consumer, topic, faults)
        if known.error is not None:
            raise _refused(known.error, topic, address)
        wanted = sorted(known.partitions) if partitions is None else partitions
        return {p: _end(consumer, TopicPartition(topic, p)) for p in wanted}
    except KafkaException as error:
        raise DependencyUnreachable("Kafka", address, *faults.explain()) from error


def _metadata(consumer: Consumer, topic: str, faults: Faults) -> Any:  # the class is not exported
    give_up_s = time.monotonic() + _START_S
    while True:
        try:
            return consumer.list_topics(topic, timeout=_ATTEMPT_S).topics[topic]
        except KafkaException:
            consumer.poll(0)  # lets librdkafka tell `faults` why
            if faults.hopeless or time.monotonic() >= give_up_s:
                raise


def _end(consumer: Consumer, at: TopicPartition) -> int:
    """Waits while the partition has no leader: a topic was made this moment, or a broker is just gone."""
    give_up_s = time.monotonic() + _START_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(at, timeout=_START_S)[1])
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() >= give_up_s:
                raise
            time.sleep(_POLL_S)


_LEADERLESS = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # metadata knows it, its broker not yet
}


def raise_if_refused(error: KafkaError, topic: str, address: str) -> None:
    """For the errors that arrive among the records. Returns where librdkafka goes on by itself.

    Raises:
        DependencyUnreachable: waiting will not help.
    """
    if error.fatal() or error.code() in _REFUSALS:
        raise _refused(error, topic, address)


_REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}


def _refused(error: KafkaError, topic: str, address: str) -> DependencyUnreachable:
    next_step = (
        f"Grant this user Read on topic {topic} and on its group."
        if "AUTHORIZATION" in error.name()
        else "Create the topics with `stream-interp topics apply`, and check kafka.topic_prefix."
    )
    return DependencyUnreachable("Kafka", address, f"topic {topic}: {error.str()}".rstrip("."), next_step)


def _until(
    consumer: Consumer, topic: str, ends: dict[int, int], faults: Faults, address: str, stall_s: float
) -> Iterator[Message]:
    unread, heard_s = {p: end for p, end in ends.items() if end > 0}, time.monotonic()
    while unread:
        message = consumer.poll(_POLL_S)
        faults.raise_if_hopeless(address)
        error = message.error() if message else None
        if message is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
            if error is not None:
                raise_if_refused(error, topic, address)
            if time.monotonic() - heard_s >= stall_s:
                raise DependencyUnreachable("Kafka", address, *faults.explain())
            continue
        partition, offset = message.partition(), message.offset()
        if partition in unread and offset is not None:
            if error is None and offset < unread[partition]:
                yield message
            if error is not None or offset + 1 >= unread[partition]:
                del unread[partition]
        heard_s = time.monotonic()  # after the yield: the caller's own time is not silence
