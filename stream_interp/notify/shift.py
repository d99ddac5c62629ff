"""What goes on while this process holds the alerts: it takes over, decides, and keeps the sinks at work."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from stream_interp.errors import IntegrityError
from stream_interp.kafka.client import consumer_config
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.notify.delivering import Delivering
from stream_interp.notify.desk import Held, Send
from stream_interp.notify.ledger import BEGIN, Ledger
from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks import Sink
from stream_interp.notify.story import Place
from stream_interp.notify.telling import Telling
from stream_interp.observe.distributions import Distributions
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.records.consumed import Consumed
from stream_interp.records.delivery import Delivery
from stream_interp.settings import Settings

log = logging.getLogger(__name__)

ALERTS = "interp.alerts"
LONGEST_ID = 200  # ids become keys of deliveries
MARGIN_MS = 86_400_000


class Shift:
    """From an assignment to its end.

    Args:
        settings: of all processes.
        partitions: of `interp.alerts` that are ours.
        sinks: by name, those that are told of alerts.
        ledger: of deliveries.
        latency: of `delivery_latency_seconds`.
    """

    def __init__(
        self, settings: Settings, partitions: Iterable[int], sinks: Mapping[str, Sink], ledger: Ledger,
        latency: Distributions,
    ) -> None:  # fmt: skip
        self._settings, self._sinks, self._ledger, self._latency = settings, sinks, ledger, latency
        self.partitions, self.next_offsets = sorted(partitions), dict.fromkeys(partitions, 0)
        self.counts = Counter[str]()
        self.ready = False
        self._early: list[Consumed | Annotation] = []  # what came before we were ready
        self._workers: dict[str, Delivering] = {}
        self._oldest_ms: int | None = None  # of all alerts that the log still has
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def workers(self) -> Mapping[str, Delivering]:
        """By sink; none before we are ready."""
        return self._workers

    async def begin(self, orders: Iterable[Annotation]) -> None:
        """Reads what was delivered and all alerts, then begins to tell. Raises DependencyUnreachable."""
        self.next_offsets = dict.fromkeys(self.partitions, 0)
        await asyncio.to_thread(self._ledger.read)
        begun = await self._begun()
        self._telling = Telling(self._settings.notify, begun, self._ledger.find)
        for order in orders:
            self._telling.order(order)
        await asyncio.to_thread(self._read_backlog)
        self._telling.resume(self._ledger.of("delivered"))
        timeouts = {sink.name: sink.timeout_s for sink in self._settings.notify.sinks}
        self._workers = {name: self._worker(name, sink, timeouts[name]) for name, sink in self._sinks.items()}
        self.ready = True
        if self._oldest_ms is not None:  # an alert is delivered after it was written, by clocks that differ a little
            self._write(self._ledger.forget_before(self._oldest_ms - MARGIN_MS))
        for early in self._early:
            self.order(early) if isinstance(early, Annotation) else self.take(early)
        self.decide()

    def take(self, record: Consumed) -> None:
        """A record of `interp.alerts`, in the order of its partition, perhaps read before."""
        if not self.ready:
            self._early.append(record)
        elif story := self._fold(record):
            self.decide(story)

    def order(self, annotation: Annotation) -> None:
        """What an operator ordered."""
        if self.ready:
            self._telling.order(annotation)
        else:
            self._early.append(annotation)

    def tell_of_process(self, notification: Notification) -> None:
        """A silent process, or its return."""
        self._telling.tell_of_process(notification)

    def decide(self, only: str | None = None) -> None:
        """Hands the sinks what is due; call it every so often, and for a story that moved on."""
        rooms = {name: worker.room for name, worker in self._workers.items()}
        for sink, decision in self._telling.due(_now_ms(), rooms, only):
            if isinstance(decision, Send):
                self._workers[sink].put(decision)
            else:
                self._record_held(sink, decision)
        for worker in self._workers.values():
            worker.raise_if_ended()

    async def close(self, within_s: float) -> None:
        """Begins nothing new; what is being sent has so long to end."""
        await asyncio.gather(*(worker.close(within_s) for worker in self._workers.values()))
        for task in self._writing:
            task.cancel()

    async def _begun(self) -> dict[str, int]:
        known = {name: self._ledger.find(name, BEGIN) for name in self._sinks}
        fresh = [
            Delivery(sink=name, event_id=BEGIN, outcome="begun", attempts=0, at_ms=_now_ms())
            for name, delivery in known.items()
            if delivery is None
        ]
        await self._ledger.record(fresh)
        return {d.sink: d.at_ms for d in [*known.values(), *fresh] if d is not None}

    def _read_backlog(self) -> None:
        """Others' partitions are read, too: a delivery does not say which one its alert is in."""
        kafka = self._settings.kafka
        for message in read_topic_to_end(consumer_config(kafka, "backlog"), kafka.topic_prefix + ALERTS):
            record = consumed(message)
            ages = (record.timestamp_ms, self._oldest_ms)
            self._oldest_ms = min(at_ms for at_ms in ages if at_ms is not None)
            if record.partition in self.next_offsets:
                self._fold(record)

    def _fold(self, record: Consumed) -> str | None:
        if record.offset < self.next_offsets.get(record.partition, 0):
            return None
        self.next_offsets[record.partition] = record.offset + 1
        self.counts["records"] += 1
        try:
            event = _sane(decode_event(record.value))
        except IntegrityError as error:
            self.counts["unreadable_records"] += 1
            where = {"topic": ALERTS, "partition": record.partition, "offset": record.offset}
            log.warning("%s/%d offset %d not told: %s", ALERTS, record.partition, record.offset, error, extra=where)
            return None
        return self._telling.take(event, Place(record.partition, record.offset, record.timestamp_ms))

    def _worker(self, name: str, sink: Sink, timeout_s: float) -> Delivering:
        def on_done(notification: Notification, delivered: bool, at_ms: int) -> None:
            self._telling.done(name, notification, delivered, at_ms)
            self.decide(notification.story)

        return Delivering(
            name, sink, timeout_s, self._settings.notify.attempts, self._ledger, on_done, _now_ms, random.random,
            self._latency,
        )  # fmt: skip

    def _record_held(self, sink: str, held: Held) -> None:
        self._workers[sink].counts["silenced"] += len(held.event_ids)
        at_ms = _now_ms()
        self._write(
            self._ledger.record(
                Delivery(
                    sink=sink, event_id=event_id, outcome="silenced", attempts=0, at_ms=at_ms, detail=held.detail,
                    incident_id=held.story,
                )
                for event_id in held.event_ids
            )
        )  # fmt: skip

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


def _sane(event: Alert | Annotation) -> Alert | Annotation:
    if max(len(event.event_id), len(event.incident_id)) > LONGEST_ID:
        raise IntegrityError(f"an id of more than {LONGEST_ID} characters; who else writes to {ALERTS}?")
    return event


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
