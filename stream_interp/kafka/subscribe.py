"""Typed alerts for any consumer: `for alert in AlertSubscriber("127.0.0.1:19092"): …`.

`EventSubscriber` is the same with what operators said of them.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Generic, Self, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_interp.errors import DependencyUnreachable, IntegrityError
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.read import end_offsets, raise_if_refused
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

TOPIC = "interp.alerts"
UNREACHABLE_AFTER_S = 60.0  # outlives the restart of a broker
_PROBE_EVERY_S = 5.0

Event = TypeVar("Event", bound=Alert | Annotation)


class _Subscriber(ABC, Generic[Event]):
    """What both subscribers do; see `AlertSubscriber`."""

    def __init__(
        self,
        bootstrap: str,
        *,
        group: str | None = None,
        tenant: str | None = None,
        model_id: str | None = None,
        from_beginning: bool = False,
        topic_prefix: str = "",
        librdkafka: Mapping[str, str] | None = None,
    ) -> None:
        kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=topic_prefix, librdkafka=dict(librdkafka or {}))
        self.malformed = 0  # records skipped because they are no events
        self._tenant, self._model_id = tenant, model_id
        self._topic, self._address = topic_prefix + TOPIC, client.address(kafka)
        self._in_group = group is not None
        self._handing_out: Message | None = None
        self._reach = _Reach(self._address)
        self._consumer = client.consumer(_config(kafka, group, self._reach.on_error))
        try:
            ends = end_offsets(self._consumer, self._topic, self._reach.faults, self._address)
        except DependencyUnreachable:
            self._consumer.close()
            raise
        self._start = {p: OFFSET_BEGINNING if from_beginning else end for p, end in ends.items()}
        if self._in_group:
            self._consumer.subscribe([self._topic], on_assign=self._assigned)
        else:
            self._consumer.assign([TopicPartition(self._topic, p, at) for p, at in self._start.items()])

    def poll(self, timeout_s: float) -> Event | None:
        """The next event, or None if none came in time. The event handed out before counts as handled.

        Raises:
            DependencyUnreachable: see the class.
        """
        self._handled()
        deadline_s = time.monotonic() + timeout_s
        while True:
            message = self._consumer.poll(max(0.0, deadline_s - time.monotonic()))
            self._reach.check(self._consumer, heard=message is not None and message.error() is None)
            if message is not None and (event := self._event(message)) is not None:
                return event
            if time.monotonic() >= deadline_s:
                return None

    def commit(self) -> None:
        """The event handed out last is handled: commit it now. Without a group it does nothing."""
        self._handled()
        if self._in_group:
            try:
                self._consumer.commit(asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._NO_OFFSET:  # nothing new since the last commit
                    raise self._failed("commit", error, "The alert comes again: drop repeats by event_id.") from error

    def close(self) -> None:
        """Leave the group; handled events are committed."""
        self._consumer.close()

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.poll(1.0)
            if event is not None:
                yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _event(self, message: Message) -> Event | None:
        if (error := message.error()) is not None:
            raise_if_refused(error, self._topic, self._address)
            log.warning("alerts: %s; going on", error.str())
            return None
        self._handing_out = message
        try:
            event = decode_event(message.value())
        except IntegrityError as error:
            self.malformed += 1
            log.warning("alerts: skipped %s[%s]@%s: %s", self._topic, message.partition(), message.offset(), error)
        else:
            if self._is_of_lane(event) and (wanted := self._wanted(event)) is not None:
                return wanted
        self._handled()
        return None

    @abstractmethod
    def _wanted(self, event: Alert | Annotation) -> Event | None:
        """The event, if this subscriber hands out its kind."""

    def _is_of_lane(self, event: Alert | Annotation) -> bool:
        return self._tenant in (None, event.lane.tenant) and self._model_id in (None, event.lane.model_id)

    def _handled(self) -> None:
        message, self._handing_out = self._handing_out, None
        if message is None or not self._in_group:
            return
        try:
            self._consumer.store_offsets(message)
        except KafkaException as error:  # the partition is another member's now: the alert comes again there
            log.warning(
                "alerts: %s[%s]@%s not committed: %s", self._topic, message.partition(), message.offset(), error
            )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The start of a partition is committed before it is read, or a crash before the first commit loses it."""
        try:
            committed = consumer.committed(partitions, timeout=10.0)
            new = [TopicPartition(p.topic, p.partition, self._first(consumer, p)) for p in committed if p.offset < 0]
            if new:
                consumer.commit(offsets=new, asynchronous=False)
        except KafkaException as error:
            raise self._failed("joining the group", error, "Start the subscriber again.") from error

    def _failed(self, what: str, error: KafkaException, next_step: str) -> DependencyUnreachable:
        return DependencyUnreachable("Kafka", self._address, f"{what}: {error.args[0].str()}", next_step)

    def _first(self, consumer: Consumer, at: TopicPartition) -> int:
        start = self._start.get(at.partition, OFFSET_BEGINNING)
        return start if start >= 0 else int(consumer.get_watermark_offsets(at, timeout=10.0)[0])


def _config(kafka: KafkaSettings, group: str | None, on_error: client.OnError) -> client.Config:
    if group is None:
        return client.consumer_config(kafka, "alerts", offset_reset="earliest", on_error=on_error)
    return client.consumer_config(
        kafka,
        "alerts",
        offset_reset="earliest",  # a committed offset that has expired: what is left, rather than nothing
        on_error=on_error,
        group_id=group,
        enable_auto_commit=True,  # of what `store_offsets` has stored, and once more on closing
        auto_commit_interval_ms=1000,
    )


class AlertSubscriber(_Subscriber[Alert]):
    """Iterates committed alerts, for ever; what operators said of them is skipped.

    A context manager; use it from one thread.

    Without a group it reads all partitions and remembers nothing. With a group the members share the partitions, and
    each alert comes at least once: it is committed only after the loop has asked for the next one, so the alert being
    handled in a crash comes again. Drop repeats by `event_id`.

    Args:
        bootstrap: Kafka address.
        group: consumer group id, as it is.
        tenant: only alerts of this tenant.
        model_id: only alerts of this model.
        from_beginning: the whole topic; else only what comes after this call. A group that has committed before goes
            on from there in either case.
        topic_prefix: put before the topic's name.
        librdkafka: client settings, for example `security.protocol`; they win.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic. While reading: the same, after
            60 s without a broker.
    """

    def _wanted(self, event: Alert | Annotation) -> Alert | None:
        return event if isinstance(event, Alert) else None


class EventSubscriber(_Subscriber[Alert | Annotation]):
    """As `AlertSubscriber`, with the annotations: acks, silences and their ends."""

    def _wanted(self, event: Alert | Annotation) -> Alert | Annotation:
        return event


class _Reach:
    """Tells a quiet topic from a Kafka that is gone or refuses us: librdkafka reports both as no message."""

    def __init__(self, address: str) -> None:
        self.faults = Faults(log_every_s=None)
        self._address = address
        self._suspect, self._probe_at_s, self._lost_at_s = False, 0.0, math.inf

    def on_error(self, error: KafkaError) -> None:
        """For librdkafka's `error_cb`."""
        self._suspect = True
        self.faults(error)

    def check(self, consumer: Consumer, *, heard: bool) -> None:
        """Once per poll. Raises DependencyUnreachable."""
        self.faults.raise_if_hopeless(self._address)
        if heard:
            self._suspect, self._lost_at_s = False, math.inf
        now_s = time.monotonic()
        if not self._suspect or now_s < self._probe_at_s:
            return
        self._probe_at_s = now_s + _PROBE_EVERY_S
        try:
            consumer.list_topics(timeout=1.0)
            self._suspect, self._lost_at_s = False, math.inf
        except KafkaException as error:
            found, next_step = self.faults.explain()
            if math.isinf(self._lost_at_s):
                log.warning("alerts: Kafka at %s: %s; waiting up to %g s", self._address, found, UNREACHABLE_AFTER_S)
                self._lost_at_s = now_s
            if now_s - self._lost_at_s >= UNREACHABLE_AFTER_S:
                raise DependencyUnreachable("Kafka", self._address, found, next_step) from error
