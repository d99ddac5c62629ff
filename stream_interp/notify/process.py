"""NOTIFY as a process: a Faust app on `interp.alerts`; notifications to sinks, deliveries to `interp.deliveries`.

Whoever holds the alerts' partitions reads everything that was delivered and the whole log of alerts before it sends
anything, so that a restart, after whatever end, tells what was not told and nothing else. One event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, cast

from faust.types import TP

from stream_interp.errors import DependencyUnreachable, StreamInterpError, UsageError
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.heartbeat import Heart
from stream_interp.kafka.produce import require_topic
from stream_interp.notify.faust_app import NotifyApp, reader_settings
from stream_interp.notify.ledger import DELIVERIES, DLQ, Ledger
from stream_interp.notify.listening import Listening
from stream_interp.notify.progress import Progress
from stream_interp.notify.routes import check_names
from stream_interp.notify.shift import ALERTS, Shift
from stream_interp.notify.sinks import Pinger, SinkError, SinkTools, make_sink
from stream_interp.notify.telling import told_silent, wording_of
from stream_interp.notify.watchdog import Watchdog
from stream_interp.observe.board import ASSIGNMENT_RECEIVED, STATE_RESTORED, Board, Reading, Snapshot
from stream_interp.observe.distributions import Distributions
from stream_interp.records.consumed import Consumed
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.1
DECIDE_S = 0.5  # what waits for a time, not for an event
REST = 4  # times what deciding took: with very many open stories the loop still hears alerts and heartbeats
BEGIN_WITHIN_S = 60.0  # a broker that restarts makes us begin again, perhaps before it answers
CLOSE_S = 5.0  # for sends under way
LEADING_PARTITION = 0  # its holder watches the processes and calls the dead-man


def notify_board() -> Board:
    """Of a process that has not begun."""
    return Board("notify", [ASSIGNMENT_RECEIVED, STATE_RESTORED])


class Notify:
    """One NOTIFY process; a second one waits until the first is gone.

    Args:
        settings: of all processes.
        say: shows one line to the person who started it.
        board: where it shows itself.

    Raises:
        DependencyUnreachable: Kafka does not answer, or refuses us.
        UsageError: a sink, a route, a login or a topic that cannot be used.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], board: Board | None = None) -> None:
        kafka, notify = settings.kafka, settings.notify
        self._settings, self._say, self._board = settings, say, board or notify_board()
        check_names(notify)
        reader_settings(kafka, "")  # what cannot be mapped is told before anything starts
        self._sinks = {sink.name: make_sink(sink, SinkTools()) for sink in notify.sinks}
        require_kafka(kafka)
        for topic in (ALERTS, DELIVERIES, DLQ):
            require_topic(kafka, topic)
        self._started_at_ms, self._began_s = _now_ms(), time.monotonic()
        self._process_id = f"notify-{kafka.instance}@{socket.gethostname()}:{os.getpid()}"
        after_ms, status_ms = round(notify.silent_after_s * 1000), round(settings.status.interval_s * 1000)
        self._watchdog = Watchdog(self._process_id, self._started_at_ms, after_ms, wording_of(notify), status_ms)
        self._listening = Listening(kafka, self._watchdog)
        self._ledger, self._heart = Ledger(kafka), Heart(kafka, self._heartbeat)
        self._latency, self._counts = Distributions("delivery_latency_seconds"), Counter[str]()
        self._shift: Shift | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beginning: asyncio.Task[None] | None = None
        self._decide_due_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; what is being sent then still has a few seconds.

        Raises:
            StreamInterpError: it cannot go on; a supervisor may start it again.
        """
        asyncio.run(self._main(stop))

    async def _main(self, stop: threading.Event) -> None:
        self._app = app = NotifyApp(self._settings.kafka, ALERTS, self._took)
        app.on_partitions_assigned.connect(cast(Any, self._assigned), weak=False)
        app.on_partitions_revoked.connect(cast(Any, self._revoked), weak=False)
        self._progress = Progress(self._settings.kafka, ALERTS, self._positions)
        pings = [self._ping(sink.name, sink.interval_s) for sink in self._settings.notify.sinks]
        try:
            await app.start()
            self._tasks |= {asyncio.create_task(work) for work in (self._progress.watch(), *pings)}
            while not stop.is_set():
                self._turn()
                await asyncio.sleep(TICK_S)
            self._heart.farewell()
        finally:
            await self._end()

    def _turn(self) -> None:
        steady_ms = self._steady_ms()
        self._heart.beat_if_due()
        self._watchdog.turn(steady_ms)
        for order in self._listening.poll(steady_ms):
            if self._shift is not None:
                self._shift.order(order)
        if self._shift is not None and self._shift.ready and time.monotonic() >= self._decide_due_s:
            for notification in self._watchdog.judge(steady_ms, _now_ms()) if self._leads else ():
                log.warning("%s", notification.title)
                self._shift.tell_of_process(notification)
            began_s = time.monotonic()
            self._shift.decide()
            now_s = time.monotonic()
            self._decide_due_s = now_s + max(DECIDE_S, REST * (now_s - began_s))
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            if not task.cancelled():
                task.result()
        if self._app.crashed:
            raise StreamInterpError(f"Faust cannot go on: {self._app.crash_reason!r}; start notify again")
        if self._watchdog.rival:
            raise UsageError(
                f"notify {self._watchdog.rival} runs on this host with the same kafka.instance; give this one another"
            )
        self._board.turn(self._observed)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._shift is not None:
            await self._shift.close(CLOSE_S)
        await self._app.stop()
        for sink in self._sinks.values():
            await sink.close()
        self._progress.close()
        self._listening.close()
        self._ledger.close()
        self._heart.close()

    async def _assigned(self, _app: Any, assigned: Iterable[TP], **_: Any) -> None:
        """Faust asks for it again after every rebalance: then all is read again."""
        await self._leave()
        partitions = [tp.partition for tp in assigned]
        told = {name: sink for name, sink in self._sinks.items() if not isinstance(sink, Pinger)}
        self._shift = Shift(self._settings, partitions, told, self._ledger, self._latency)
        self._beginning = asyncio.create_task(self._begin(self._shift))
        self._tasks.add(self._beginning)

    async def _revoked(self, _app: Any, revoked: Iterable[TP], **_: Any) -> None:
        await self._leave()

    async def _leave(self) -> None:
        shift, self._shift = self._shift, None
        if shift is not None and self._beginning is not None:
            self._beginning.cancel()
            await shift.close(0.0)
            self._counts.update(shift.counts)

    async def _begin(self, shift: Shift) -> None:
        began_s = time.monotonic()
        while True:
            try:
                await shift.begin(self._listening.orders)
                break
            except DependencyUnreachable as error:
                if time.monotonic() - began_s > BEGIN_WITHIN_S:
                    raise
                log.warning("%s; trying again", error)
        self._watchdog.resume(told_silent(self._ledger.of("delivered"), self._sinks))
        read, took_s = shift.counts["records"], time.monotonic() - began_s
        self._say(
            f"notify: partitions {shift.partitions} of {ALERTS}, {read} records read in {took_s:.1f} s; "
            f"sinks: {', '.join(self._sinks) or 'none'}"
        )

    async def _took(self, record: Consumed) -> None:
        if self._shift is not None:
            self._shift.take(record)

    async def _positions(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for tp in self._app.consumer.assignment():
            position = await self._app.consumer.position(tp)
            found[tp.partition] = position or 0
        return found

    async def _ping(self, name: str, interval_s: float) -> None:
        sink = self._sinks[name]
        while isinstance(sink, Pinger):
            if self._progress.healthy and self._leads:
                try:
                    await sink.ping()
                    self._counts["pings"] += 1
                except SinkError as error:
                    log.warning("dead-man %s: %s", name, error.found)
                except Exception:
                    log.exception("sink %s broke its contract", name)
            await asyncio.sleep(interval_s)

    def _steady_ms(self) -> int:
        """Unix epoch ms at our start and what went by since then: nobody sets this clock."""
        return self._started_at_ms + round((time.monotonic() - self._began_s) * 1000)

    @property
    def _leads(self) -> bool:
        return self._shift is not None and self._shift.ready and LEADING_PARTITION in self._shift.partitions

    def _failing(self) -> list[str]:
        workers = self._shift.workers if self._shift is not None else {}
        return sorted(name for name, worker in workers.items() if worker.failing)

    def _heartbeat(self) -> Heartbeat:
        shift, prefix = self._shift, self._settings.kafka.topic_prefix
        return Heartbeat(
            process_id=self._process_id, kind="notify", as_of_ms=_now_ms(), started_at_ms=self._started_at_ms,
            version=version("stream-interp"),
            partitions=[f"{prefix}{ALERTS}/{p}" for p in shift.partitions] if shift is not None else [],
            counters=dict(self._counts + shift.counts if shift is not None else self._counts),
            sinks_failing=self._failing(),
        )  # fmt: skip

    def _observed(self) -> Snapshot:
        shift, failing = self._shift, self._failing()
        missing = [] if shift is not None else [ASSIGNMENT_RECEIVED]
        if shift is None or not shift.ready:
            missing.append(STATE_RESTORED)
        workers = shift.workers if shift is not None else {}
        return Snapshot(
            missing=tuple(missing),
            readings=(
                *(
                    Reading("deliveries", worker.counts[outcome], (name, outcome))
                    for name, worker in workers.items()
                    for outcome in ("delivered", "failed", "silenced")
                ),
                *(Reading("delivery_queue_length", worker.length, (name,)) for name, worker in workers.items()),
                *(Reading("sink_failing", name in failing, (name,)) for name in workers),
                *self._latency.readings(),
            ),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
