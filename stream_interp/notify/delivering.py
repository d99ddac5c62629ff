"""One sink at work: its queue, its tries, and what it did. A dead sink delays no other."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from stream_interp.notify.backoff import wait_s
from stream_interp.notify.desk import Send
from stream_interp.notify.ledger import Ledger
from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks import Sink, SinkError
from stream_interp.notify.story import Place
from stream_interp.observe.distributions import Distributions
from stream_interp.records.delivery import Delivery
from stream_interp.records.dlq import DeadLetter

log = logging.getLogger(__name__)

QUEUE = 100  # notifications; what has no room waits at the desk
AT_ONCE = 8  # stories: one that is tried again and again does not hold up the others
UNRECORDED = 32  # sent or being sent, not yet on `interp.deliveries`: what a kill may repeat
_GRACE_S = 5.0  # beyond the sink's own timeout

Outcome = Literal["delivered", "failed"]
OnDone = Callable[[Notification, bool, int], None]


class Delivering:
    """Sends what it is given, tries again, records the outcome.

    Args:
        name: of the sink.
        sink: the sink.
        timeout_s: within which a `send` ends by its contract.
        attempts: of one notification.
        ledger: where outcomes are recorded.
        on_done: called with (notification, delivered, at_ms) after that.
        now_ms: the clock.
        share: random in [0, 1).
        latency: of `delivery_latency_seconds`.
    """

    def __init__(
        self, name: str, sink: Sink, timeout_s: float, attempts: int, ledger: Ledger, on_done: OnDone,
        now_ms: Callable[[], int], share: Callable[[], float], latency: Distributions,
    ) -> None:  # fmt: skip
        self.name, self.failing, self.counts = name, False, Counter[str]()
        self._where = {"sink": name}  # for log lines
        self._sink, self._timeout_s, self._attempts, self._ledger = sink, timeout_s, attempts, ledger
        self._on_done, self._now_ms, self._share, self._latency = on_done, now_ms, share, latency
        latency.begin(name)
        self._queue = asyncio.Queue[Send](QUEUE)
        self._busy, self._closing = 0, False
        self._unrecorded = asyncio.Semaphore(UNRECORDED)
        self._recording = set[asyncio.Task[None]]()
        self._tasks = [asyncio.create_task(self._work(), name=f"sink {name}") for _ in range(AT_ONCE)]

    @property
    def room(self) -> int:
        """How many more may be queued."""
        return 0 if self._closing else QUEUE - self._queue.qsize()

    @property
    def length(self) -> int:
        """Waiting or under way."""
        return self._queue.qsize() + self._busy

    def put(self, send: Send) -> None:
        """Queues one; there must be room."""
        self._queue.put_nowait(send)

    def raise_if_ended(self) -> None:
        """Workers end only by a defect of ours: it must not go unseen."""
        for task in [*self._tasks, *self._recording]:
            if task.done():
                task.result()

    async def close(self, within_s: float) -> None:
        """Begins nothing new; what is being sent has `within_s` to end."""
        self._closing = True
        waited_s = 0.0
        while self._busy and waited_s < within_s:
            await asyncio.sleep(0.05)
            waited_s += 0.05
        self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Ends at once: another process has the alerts now, or we will begin again."""
        for task in [*self._tasks, *self._recording]:
            task.cancel()

    async def _work(self) -> None:
        while True:
            send = await self._queue.get()
            if not self._closing:
                await self._unrecorded.acquire()
                self._busy += 1
                self._record_meanwhile(await self._deliver(send))

    def _record_meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
        """The sink need not wait for Kafka's answer: the next story goes out while this one is recorded."""
        task = asyncio.create_task(work)
        self._recording.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[None]) -> None:
        self._busy -= 1
        self._unrecorded.release()
        if task.cancelled() or task.exception() is None:  # else `raise_if_ended` finds it
            self._recording.discard(task)

    async def _deliver(self, send: Send) -> Coroutine[Any, Any, None]:
        """Sends it, again and again if need be; the work that is left is to record the outcome."""
        notification, error = send.notification, "no try"
        for tries in range(1, self._attempts + 1):
            failure = await self._try(notification)
            if failure is None:
                return self._delivered(notification, tries, self._now_ms())
            error = failure.found
            if not failure.retry or tries == self._attempts:
                break
            wait = wait_s(tries, self._share(), failure.retry_after_s)
            log.warning("sink %s: %s; try %d again in %.1f s", self.name, error, tries, wait, extra=self._where)
            if self._closing:
                return _nothing()
            await asyncio.sleep(wait)
        return self._given_up(send, tries, error)

    async def _try(self, notification: Notification) -> SinkError | None:
        try:
            await asyncio.wait_for(self._sink.send(notification), self._timeout_s + _GRACE_S)
        except SinkError as error:
            return error
        except TimeoutError:
            return SinkError(f"no answer within {self._timeout_s:g} s", retry=True)
        except Exception as error:
            log.exception("sink %s broke its contract", self.name, extra=self._where)
            return SinkError(f"defect of the sink: {type(error).__name__}", retry=True)
        return None

    async def _delivered(self, notification: Notification, tries: int, at_ms: int) -> None:
        self.failing = False
        self.counts["delivered"] += 1
        self._latency.add(max(0.0, (at_ms - notification.at_ms) / 1000), self.name)
        await self._record(notification, "delivered", tries, at_ms, _detail(notification))
        self._on_done(notification, True, at_ms)

    async def _given_up(self, send: Send, tries: int, error: str) -> None:
        notification, at_ms, self.failing = send.notification, self._now_ms(), True
        self.counts["failed"] += 1
        log.error("sink %s: given up after %d tries: %s", self.name, tries, error, extra=self._where)
        await self._ledger.set_aside(_letter(self.name, send, error, at_ms), notification.story.encode())
        await self._record(notification, "failed", tries, at_ms, error)
        self._on_done(notification, False, at_ms)

    async def _record(self, notification: Notification, outcome: Outcome, tries: int, at_ms: int, detail: str) -> None:
        await self._ledger.record(
            Delivery(
                sink=self.name, event_id=event_id, outcome=outcome,
                attempts=tries, at_ms=at_ms, detail=detail, incident_id=notification.story,
            )
            for event_id in notification.event_ids or [notification.id]
        )  # fmt: skip


async def _nothing() -> None:
    """Of a notification that is tried again by whoever comes after us."""


def _detail(notification: Notification) -> str:
    return notification.title if notification.kind == "silent" else notification.kind


def _letter(sink: str, send: Send, error: str, at_ms: int) -> DeadLetter:
    place = send.place or Place(-1, -1, at_ms)
    return DeadLetter(
        reason="undelivered", detail=f"sink {sink}, event {send.notification.id}: {error}", topic="interp.alerts",
        partition=place.partition, offset=place.offset, timestamp_ms=place.logged_ms, key_base64="",
        headers_base64=[], value_bytes=0,
    )  # fmt: skip
