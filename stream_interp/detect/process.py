"""DETECT as a process: `interp.windows` in; alerts, statuses, checkpoints and offsets out, in one transaction a poll.

One thread. A lane's state lives in memory and follows from its checkpoint and the log: whenever a transaction fails or
a partition comes back, it is built again from there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version

from stream_interp.detect.after_alarm import AfterAlarm
from stream_interp.detect.announce import alert_line, armed_line, limits_line
from stream_interp.detect.checkpoint import Checkpoints, read_saved, start_of
from stream_interp.detect.label_files import read_site_labels
from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.observed import Shown, detect_board
from stream_interp.detect.operators import Operators
from stream_interp.detect.ours import Ours, Owned
from stream_interp.detect.outgoing import CONTROL, STATE, WINDOWS, Outgoing, records_of
from stream_interp.detect.partition import MAX_LANES, Told, WindowsPartition, read_progress
from stream_interp.detect.state import DetectSettings, LaneState
from stream_interp.detect.view import said_of_lane, status_of
from stream_interp.errors import IntegrityError
from stream_interp.kafka.client import consumer_config, require_kafka
from stream_interp.kafka.follow import TopicFollower
from stream_interp.kafka.group import Assigned, GroupReader
from stream_interp.kafka.heartbeat import FailingSinks, Heart
from stream_interp.kafka.partitioner import partition_of
from stream_interp.kafka.produce import require_topic
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.span import SpanReader
from stream_interp.kafka.transactions import CommittedOffset, TransactionAborted, Transactions
from stream_interp.observe.board import Board, Snapshot, input_readings
from stream_interp.observe.logs import About
from stream_interp.observe.stopwatch import Stopwatch
from stream_interp.records.alert import Alert
from stream_interp.records.checkpoint import is_part_of_copy
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Marker, Versioned
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.records.status import Status
from stream_interp.secret_files import read_secret
from stream_interp.settings import RedisSettings, Settings
from stream_interp.status.connection import require_redis
from stream_interp.status.redis_view import RedisView

log = logging.getLogger(__name__)

POLL_S, POLL_RECORDS = 0.2, 100
CONTROL_WAIT_S = 5.0  # a marker may be read before the control record behind it


class Detect:
    """One DETECT process.

    Args:
        settings: of all processes.
        say: shows one line to the person who started it.
        board: where it shows itself.

    Raises:
        DependencyUnreachable: Kafka or Redis does not answer, or refuses us.
        UsageError: a topic is missing, or a file of secrets or of feature labels cannot be read.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], board: Board | None = None) -> None:
        self._board, self._shown, self._watch = board or detect_board(), Shown(), Stopwatch()
        self._settings, self._say, self._started_at_ms = settings, say, _now_ms()
        kafka, self._labels = settings.kafka, read_site_labels(settings.sites, say)
        require_kafka(kafka)
        for topic in (WINDOWS, STATE, CONTROL):
            require_topic(kafka, topic)
        self._redis = _view(settings.redis, settings.status.interval_s)
        self._operators, self._counters = Operators(), Counter[str]()
        self._armed, self._sequence = dict[str, int](), 0
        self._control, self._sinks = TopicFollower(kafka, CONTROL), FailingSinks(kafka)
        self._spans = SpanReader(kafka, WINDOWS)
        self._after = AfterAlarm(self._spans)
        self._follow(self._control.to_end())
        self._transactions = Transactions(kafka, "detect")
        self._heart = Heart(kafka, self._heartbeat)
        self._reader = GroupReader(kafka, "detect", WINDOWS, self._start, self._stop)
        n_partitions = self._reader.count_partitions()
        self._ours = Ours(settings, self._operators, lambda lane_id: partition_of(lane_id, n_partitions))
        self._say(limits_line(MAX_LANES, settings.baseline.requests, settings.unit.blocks))
        now_s = time.monotonic()
        self._status_due_s, self._checkpoint_due_s = now_s, now_s + settings.checkpoint.interval_s
        self.ready = threading.Event()  # our partitions are read to their ends, baselines that waited are marked

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then every changed lane is checkpointed and the group is left.

        Raises:
            StreamInterpError: it cannot go on; a supervisor may start it again.
        """
        try:
            while not stop.is_set():
                self._turn()
            self._commit(Outgoing(), checkpoint=True)
            self._heart.farewell()
        finally:
            self._reader.close()
            self._control.close()
            self._sinks.close()
            self._spans.close()
            self._transactions.close()
            self._heart.close()
            if self._redis is not None:
                self._redis.close()

    def _turn(self) -> None:
        """One poll and everything that follows from it."""
        self._follow(self._control.poll())
        records, told = self._reader.poll(POLL_RECORDS, POLL_S), Told()
        with self._watch.timed("tick"):
            for record in records:
                self._ours.partitions[record.partition].windows.take(record, self._find_baseline, told)
        for p, owned in self._ours.partitions.items():
            if self._reader.has_reached_end(p):
                owned.windows.reached_end()
        self._look_back(told)
        now_s = time.monotonic()
        for partition, lane_id in told.windows:
            self._ours.partitions[partition].watch.saw_window(lane_id, now_s)
        all_due, checkpoint_due = now_s >= self._status_due_s, now_s >= self._checkpoint_due_s
        out = self._outgoing(told, now_s, all_due=all_due)
        if out or checkpoint_due:
            self._commit(out, checkpoint=checkpoint_due)
        if self._reader.assigned and all(self._reader.has_reached_end(p) for p in self._ours.partitions):
            self.ready.set()
        if all_due:
            self._status_due_s = now_s + self._settings.status.interval_s
        if checkpoint_due:
            self._checkpoint_due_s = now_s + self._settings.checkpoint.interval_s
        self._counters.update(records=len(records), alerts=len(told.alerts))
        self._heart.beat_if_due()
        self._board.turn(self._observed)

    def _look_back(self, told: Told) -> None:
        """The turn's share of the post-alarm jobs."""
        lanes = {i: state for owned in self._ours.caught_up.values() for i, state in owned.windows.lanes.items()}
        with self._watch.timed("after_alarm"):
            alert = self._after.work(lanes)
        if alert is not None:
            told.alerts.append(alert)
            told.partitions.add(alert.position.partition)

    def _decorated(self, alert: Alert) -> Alert:
        return self._labels.on_alert(self._after.on_alert(alert))

    def _commit(self, out: Outgoing, *, checkpoint: bool) -> None:
        """One transaction. If it fails, all lanes are built again from their checkpoints."""
        ready = self._ours.caught_up
        if not ready:
            return
        try:
            with self._watch.timed("transaction"), self._transactions.open() as transaction:
                for topic, record, partition in records_of(out, self._operators, self._decorated, _now_ms()):
                    transaction.send(topic, record, partition)
                for p, owned in ready.items():
                    owned.windows.annotated_up_to(out.heard_to)
                    copies = owned.checkpoints.of_incidents(owned.windows, out.told.alerts)
                    saves = owned.checkpoints.of_all if checkpoint else owned.checkpoints.of_new_lanes
                    for record in (*copies, *saves(owned.windows)):
                        transaction.send(STATE, record, p)
                offsets = {p: CommittedOffset(o.windows.read_from, o.windows.metadata) for p, o in ready.items()}
                transaction.commit_offsets(WINDOWS, offsets, self._reader.consumer)
        except TransactionAborted:  # which is logged where it happens
            self._counters.update(aborted=1)
            self._reader.restart()
            return
        for alert in out.told.alerts:
            self._say(alert_line(alert))
        self._shown.committed(out, _now_ms() if checkpoint else 0)
        if self._redis is not None:
            self._redis.publish(out.statuses)

    def _outgoing(self, told: Told, now_s: float, *, all_due: bool) -> Outgoing:
        """What this turn writes."""
        at_end = [p for p in self._ours.partitions if self._reader.has_reached_end(p)]
        markers, annotations = self._ours.due_markers(at_end, now_s, _now_ms()), self._ours.due_annotations()
        said_of = {annotation.lane.lane_id for annotation in annotations}
        statuses = self._statuses(told.changed | said_of, everything=all_due)
        annotated = [state for lane_id in sorted(said_of) if (state := self._ours.lane(lane_id)) is not None]
        return Outgoing(told, markers, statuses, annotations, annotated, self._operators.next_offset)

    def _statuses(self, changed: set[str], *, everything: bool) -> list[Status]:
        """Of the lanes that changed, or of all; only where there was a window, and nothing is being replayed."""
        now_ms, statuses = _now_ms(), list[Status]()
        failing = self._sinks.now(now_ms)
        self._sequence = max(self._sequence + 1, now_ms)  # rises across restarts too
        for p, owned in self._ours.caught_up.items():
            lag_age_s = 0.0 if self._reader.is_at_end(p) else max(0.0, (now_ms - owned.windows.append_ms) / 1000)
            for lane_id, state in owned.windows.lanes.items():
                if state.closed_at_ms and (everything or lane_id in changed):
                    status = status_of(state, now_ms, self._sequence, lag_age_s)
                    statuses.append(said_of_lane(status, state, self._operators, self._labels, failing))
                    self._say_if_armed(state)
        return statuses

    def _start(self, assigned: Assigned) -> int:
        """A partition is ours: its lanes as they were saved, and where to read on."""
        self._board.alive()
        kafka, p = self._settings.kafka, assigned.partition
        records = read_topic_to_end(consumer_config(kafka, "state"), kafka.topic_prefix + STATE, [p])
        saved = read_saved({key: m.value() or b"" for m in records if not is_part_of_copy(key := _text(m.key()))})
        progress = read_progress(assigned.offset, assigned.metadata)
        done = max(progress.done, saved.covered)
        start = start_of(saved, done, assigned.low, assigned.high, f"{kafka.topic_prefix}{WINDOWS}/{p}")
        own = self._settings
        settings = DetectSettings(drift=own.drift, baseline_requests=own.baseline.requests, unit=own.unit)
        windows = WindowsPartition(p, saved.states, start, done, settings, progress.annotated)
        self._ours.partitions[p] = Owned(windows, Checkpoints(saved, start, assigned.low), LaneWatch(time.monotonic()))
        lanes = len(saved.states)
        replay = f"replays silently up to offset {done}" if done >= start else "replays nothing"
        line = f"{WINDOWS}/{p}: {lanes} lanes restored, reads from offset {start}, {replay}"
        self._say(About(line, topic=kafka.topic_prefix + WINDOWS, partition=p, offset=start))
        for state in saved.states:
            if state.settings != settings:
                lane_id = state.lane.lane_id
                log.warning(
                    "lane %s keeps the settings it began or was armed with: %s", lane_id, state.settings,
                    extra={"lane_id": lane_id, "partition": p},
                )  # fmt: skip
        return start

    def _stop(self, partition: int) -> None:
        """Not ours any more: whoever has it now builds its lanes from their checkpoints."""
        owned = self._ours.partitions.pop(partition, None)
        if owned is not None:
            self._counters.update(owned.windows.counters)
            self._shown.forget(owned.windows.lanes)
            self._after.forget(owned.windows.lanes)

    def _follow(self, records: Iterable[Consumed]) -> None:
        """What operators want."""
        for record in records:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            try:
                whole = self._operators.add(record)
            except IntegrityError as error:
                log.warning("%s record not used: %s", CONTROL, error, extra=where)
                continue
            if whole is not None:
                m = whole.manifest
                line = f"lane {m.lane.lane_id}: {m.kind} {m.version} by {m.author or 'unknown'}"
                self._say(About(line, lane_id=m.lane.lane_id, **where))

    def _find_baseline(self, marker: Marker) -> Versioned | None:
        """The baseline that a marker names; waits for it, because another process may have written the marker."""
        deadline_s = time.monotonic() + CONTROL_WAIT_S
        while (found := self._operators.find(marker)) is None and time.monotonic() < deadline_s:
            self._follow(self._control.poll(0.1))
        return found

    def _say_if_armed(self, state: LaneState) -> None:
        if state.tests is None or state.baseline is None:
            return
        version_now = state.baseline.header.version
        if self._armed.get(state.lane.lane_id) != version_now:
            self._armed[state.lane.lane_id] = version_now
            self._say(About(armed_line(state), lane_id=state.lane.lane_id))

    def _counted(self) -> Counter[str]:
        return self._counters + self._ours.counters

    def _observed(self) -> Snapshot:
        return self._shown.snapshot(
            self._counted(),
            (
                *self._watch.readings(),
                *input_readings(self._settings.kafka.topic_prefix + WINDOWS, self._reader.lags()),
            ),
            assigned=self._reader.assigned,
            restored=len(self._ours.caught_up) == len(self._ours.partitions),
        )

    def _heartbeat(self) -> Heartbeat:
        kafka = self._settings.kafka
        return Heartbeat(
            process_id=f"detect-{kafka.instance}@{socket.gethostname()}:{os.getpid()}",
            kind="detect",
            as_of_ms=_now_ms(),
            started_at_ms=self._started_at_ms,
            version=version("stream-interp"),
            partitions=[f"{kafka.topic_prefix}{WINDOWS}/{p}" for p in sorted(self._ours.partitions)],
            counters=dict(self._counted()),
        )


def _view(redis: RedisSettings, interval_s: float) -> RedisView | None:
    if not redis.url:
        return None
    password = read_secret(redis.password_file, "redis.password_file") if redis.password_file else None
    require_redis(redis.url, password=password)
    return RedisView(redis.url, interval_s, password=password)


def _text(key: str | bytes | None) -> str:
    return key if isinstance(key, str) else (key or b"").decode(errors="replace")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
