"""What NOTIFY follows beside the alerts: heartbeats, statuses, and operators' orders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

from stream_interp.errors import IntegrityError
from stream_interp.kafka.follow import TopicFollower
from stream_interp.notify.watchdog import Vouched, Watchdog
from stream_interp.records.annotation import Annotation, make_annotation
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import ControlReader, read_order
from stream_interp.records.envelope import read_json
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

HEARTBEAT, STATUS, CONTROL = "interp.heartbeat", "interp.status", "interp.control"
TOLD_KINDS = ("ack", "silence", "unsilence")
Read = TypeVar("Read", Heartbeat, Vouched)


class Listening:
    """Reads the three topics to their ends at once, then what is new.

    Args:
        kafka: how to reach Kafka.
        watchdog: hears of heartbeats and statuses.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """

    def __init__(self, kafka: KafkaSettings, watchdog: Watchdog) -> None:
        self._watchdog, self._controls = watchdog, ControlReader()
        self._heartbeats, self._statuses = TopicFollower(kafka, HEARTBEAT), TopicFollower(kafka, STATUS)
        self._orders = TopicFollower(kafka, CONTROL)
        for record, heartbeat in self._read(HEARTBEAT, self._heartbeats.to_end(), Heartbeat):
            watchdog.heard_before(heartbeat, record.timestamp_ms)
        for record, status in self._read(STATUS, self._statuses.to_end(), Vouched):
            watchdog.seen_before(status, record.timestamp_ms)
        self.orders = self._read_orders(self._orders.to_end())

    def poll(self, steady_ms: int) -> list[Annotation]:
        """New orders; the watchdog hears of the rest. Raises DependencyUnreachable."""
        for _, heartbeat in self._read(HEARTBEAT, self._heartbeats.poll(), Heartbeat):
            self._watchdog.heard(heartbeat, steady_ms)
        for _, status in self._read(STATUS, self._statuses.poll(), Vouched):
            self._watchdog.seen(status, steady_ms)
        new = self._read_orders(self._orders.poll())
        self.orders += new
        return new

    def close(self) -> None:
        """Ends it."""
        for follower in (self._heartbeats, self._statuses, self._orders):
            follower.close()

    @staticmethod
    def _read(topic: str, records: Iterable[Consumed], record_type: type[Read]) -> Iterator[tuple[Consumed, Read]]:
        for record in records:
            if record.value is None:
                continue
            try:
                yield record, read_json(record.value, record_type)
            except IntegrityError as error:
                log.warning("%s/%d offset %d: %s", topic, record.partition, record.offset, error, extra=_where(record))

    def _read_orders(self, records: Iterable[Consumed]) -> list[Annotation]:
        found = []
        for record in records:
            try:
                key = (record.key or b"").decode(errors="replace")
                whole = self._controls.add(key, record.value, record.timestamp_ms)
                if whole is not None and whole.manifest.kind in TOLD_KINDS:
                    found.append(make_annotation(whole, read_order(whole), record.timestamp_ms))
            except (IntegrityError, AssertionError) as error:
                log.warning("%s offset %d not used: %s", CONTROL, record.offset, error, extra=_where(record))
        return found


def _where(record: Consumed) -> dict[str, object]:
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
