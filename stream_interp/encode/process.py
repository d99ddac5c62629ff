"""ENCODE as a process: `interp.activations` in; windows, cuts, dead letters and offsets out, in one transaction a poll.

One thread. librdkafka's own thread fetches ahead into a queue bounded in bytes. What one poll brings is decoded,
assembled, encoded in batches over all partitions and lanes, and only then the cuts that fell due are written.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from importlib.metadata import version

from stream_interp.encode.batching import Batches, End, add_statistics
from stream_interp.encode.bounds import memory_bound_bytes, next_poll_records
from stream_interp.encode.dead_letter_rate import DeadLetterRate
from stream_interp.encode.encoder import Encoder, begin_batch
from stream_interp.encode.lanes import Lanes, Projector, Site
from stream_interp.encode.observed import by_reason, encode_board, encode_readings, nothing_left_out
from stream_interp.encode.open_cut import ClosedCut, Work
from stream_interp.encode.outgoing import CUTS, EXAMPLES, records_of
from stream_interp.encode.partition import InputPartition
from stream_interp.encode.position import CutPointer, Position, metadata_of, pointer_to, read_metadata
from stream_interp.encode.proposals import Proposals
from stream_interp.encode.sites import load_sites, site_line
from stream_interp.encode.statistics import Statistics
from stream_interp.encode.ways import Ways
from stream_interp.errors import IntegrityError
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.follow import TopicFollower
from stream_interp.kafka.group import Assigned, GroupReader
from stream_interp.kafka.heartbeat import Heart
from stream_interp.kafka.lookup import read_record
from stream_interp.kafka.produce import require_topic
from stream_interp.kafka.transactions import CommittedOffset, Transaction, TransactionAborted, Transactions
from stream_interp.observe.board import ASSIGNMENT_RECEIVED, Board, Snapshot, input_readings
from stream_interp.observe.logs import About
from stream_interp.observe.stopwatch import Stopwatch
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import ControlReader, Order, read_order, read_projector
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import read_json
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.settings import Settings

log = logging.getLogger(__name__)

ACTIVATIONS, CONTROL = "interp.activations", "interp.control"
POLL_S = 0.1


class Encode:
    """One ENCODE process.

    Args:
        settings: of all processes.
        say: shows one line to the person who started it.
        board: where it shows itself.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or lacks a topic.
        SAELoadError: an SAE that cannot be trusted.
        UsageError: no topic for examples, or no key for hashed ones.
        ComputeDtypeUnavailable: an SAE that cannot multiply in `sae.dtype` here.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], board: Board | None = None) -> None:
        self._board = board or encode_board()
        self._settings, self._say, self._started_at_ms = settings, say, _now_ms()
        require_kafka(settings.kafka)
        require_topic(settings.kafka, ACTIVATIONS)
        sites = load_sites(settings)
        self._board.now_missing(ASSIGNMENT_RECEIVED)
        self._sae_bytes, self._account = sum(site.sae_bytes for site in sites), nothing_left_out()
        if any(site.examples for site in sites):
            require_topic(settings.kafka, EXAMPLES)
        self._ways = Ways((site.sae for site in sites if site.sae), settings.sae.max_memory_bytes)
        self._proposals = Proposals(settings.sae.dtype, self._ways)
        self._lanes = Lanes(sites, settings.unknown_sites, self._ways)
        self._partitions = dict[int, InputPartition]()
        self._rate, self._poll_records = DeadLetterRate(settings.dlq.max_rate), 64
        self._counters, self._watch = Counter[str](), Stopwatch()
        self._batches = Batches(self._begin)
        self._control, self._control_reader = TopicFollower(settings.kafka, CONTROL), ControlReader()
        self._follow_control(self._control.to_end())
        self._transactions = Transactions(settings.kafka, "encode")
        self._heart = Heart(settings.kafka, self._heartbeat)
        self._reader = GroupReader(settings.kafka, "encode", ACTIVATIONS, self._start, self._stop)
        self._say_limits(sites)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then what is open is cut, committed, and the group is left.

        Raises:
            StreamInterpError: it cannot go on; a supervisor may start it again.
        """
        try:
            while not stop.is_set():
                self._turn()
            closed = [p.close() for p in self._partitions.values() if not p.cut.empty]
            self._batches.work_off([c.cut for c in closed], [])
            self._commit(closed)
            self._heart.farewell()
        finally:
            self._reader.close()
            self._control.close()
            self._transactions.close()
            self._heart.close()

    @property
    def busy_s(self) -> dict[str, float]:
        """Seconds spent so far, by phase; `window` is part of `encode`."""
        return dict(self._watch.busy_s)

    @property
    def progress(self) -> tuple[int, int]:
        """Requests and tokens encoded so far."""
        return self._counters["requests"], self._counters["tokens"]

    def _turn(self) -> None:
        """One poll and everything that follows from it."""
        closed = self._follow_control(self._control.poll())
        records = self._reader.poll(self._poll_records, POLL_S)
        polled_s = time.monotonic()
        with self._watch.timed("decode"):
            rejected = self._take(records, polled_s, closed)
        with self._watch.timed("encode"):
            closed += [p.close() for p in self._partitions.values() if p.due <= time.monotonic()]
            self._batches.work_off([c.cut for c in closed], [p.cut for p in self._partitions.values()])
        self._commit(closed)
        self._rate.add(polled_s, len(records), rejected)
        n_bytes = sum(len(record.value or b"") for record in records)
        self._counters.update(records=len(records), bytes=n_bytes, rejected=rejected.total())
        self._account.update(by_reason("records_rejected", rejected.items()))
        self._poll_records = next_poll_records(self._poll_records, len(records), n_bytes, time.monotonic() - polled_s)
        self._heart.beat_if_due()
        self._measure()
        self._board.turn(self._observed)

    def _measure(self) -> None:
        """One lane a turn: it may take as long as some batches."""
        measured = self._proposals.measure()
        if measured is not None:
            lane_id, choice = measured
            self._say(About(f"lane {lane_id}: proposes {choice.line}", lane_id=lane_id))

    def _take(self, records: Sequence[Consumed], now_s: float, closed: list[ClosedCut]) -> Counter[str]:
        """Records into their partitions, cuts that fall due into `closed`. Returns dead letters by reason."""
        rejected = Counter[str]()
        for record in records:
            partition = self._partitions[record.partition]
            if reason := partition.take(record, now_s):
                rejected[reason] += 1
            if partition.due <= now_s:
                closed.append(partition.close())
        return rejected

    def _begin(self, sae: Encoder | None, batch: list[Work], at_most: int | None, beside: Executor) -> End:
        items = [(work.entry.shape, work.request) for work in batch]
        end_encoding = begin_batch(sae, items, at_most, beside)

        def end() -> Statistics:
            stats = end_encoding()
            with self._watch.timed("window"):
                add_statistics(batch, stats)
                self._proposals.take(batch)
            self._counters.update(requests=len(batch), tokens=int(stats.tokens.sum()))
            return stats

        return end

    def _commit(self, closed: Sequence[ClosedCut]) -> None:
        """One transaction for all of them. If it fails, their partitions start again from what is committed."""
        if not closed:
            return
        last = {c.cut.partition: c for c in closed}
        try:
            with self._watch.timed("transaction"), self._transactions.open() as transaction:
                offsets = {}
                for c in closed:
                    metadata = self._write(transaction, c, is_last=c is last[c.cut.partition])
                    offsets[c.cut.partition] = CommittedOffset(c.position.read_from, metadata)
                transaction.commit_offsets(ACTIVATIONS, offsets, self._reader.consumer)
            self._counters.update(cuts=len(closed))
            for c in closed:
                self._account.update(by_reason("records_not_counted", c.cut.not_counted.items()))
        except TransactionAborted:  # which is logged where it happens
            self._counters.update(aborted=1)
            self._reader.restart()

    def _write(self, transaction: Transaction, closed: ClosedCut, *, is_last: bool) -> str:
        """The records of a cut. Returns the metadata of its committed offset."""
        records, cut = records_of(closed, _now_ms())
        for topic, envelope in records:
            transaction.send(topic, envelope)
        metadata = metadata_of(closed.position)
        if metadata is None and is_last:
            return pointer_to(closed.position, *transaction.place(CUTS, cut))
        transaction.send(CUTS, cut)
        return metadata or ""

    def _start(self, assigned: Assigned) -> int:
        """A partition is ours: where to read it."""
        position = Position(b=assigned.low)
        if assigned.offset is not None:
            found = read_metadata(assigned.offset, assigned.metadata)
            position = self._pointed(found) if isinstance(found, CutPointer) else found
        topic = self._settings.kafka.topic_prefix + ACTIVATIONS
        partition = self._partitions[assigned.partition] = InputPartition(
            topic, assigned.partition, self._lanes, self._settings, position, assigned.low, time.monotonic()
        )
        at, p = partition.next_offset, assigned.partition
        line = f"{ACTIVATIONS}/{p}: reads from offset {at}, counts from {position.b}"
        self._say(About(line, topic=topic, partition=p, offset=at))
        return at

    def _pointed(self, pointer: CutPointer) -> Position:
        record = read_record(self._settings.kafka, CUTS, *pointer.cut)
        return Position.of(read_json(record.value, Cut), pointer.ts)

    def _stop(self, partition: int) -> None:
        """Not ours any more: its open cut is read again by whoever has it now."""
        self._partitions.pop(partition, None)

    def _follow_control(self, records: Sequence[Consumed]) -> list[ClosedCut]:
        """New projectors, and orders to learn again. A lane's open windows are cut before its shape changes."""
        closed: list[ClosedCut] = []
        for record in records:
            try:
                key = (record.key or b"").decode()
                whole = self._control_reader.add(key, record.value, record.timestamp_ms)
                if whole is not None and whole.manifest.kind == "projector":
                    closed += self._project(read_projector(whole))
                elif whole is not None and whole.manifest.kind == "relearn":
                    closed += self._relearn(read_order(whole), whole.manifest.author)
            except (IntegrityError, UnicodeDecodeError) as error:
                where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                log.warning("%s record not used: %s", CONTROL, error, extra=where)
        return closed

    def _project(self, projector: Projector) -> list[ClosedCut]:
        if self._lanes.outdated(projector[0]):
            return []
        lane_id = projector[0].lane.lane_id
        self._lanes.apply(projector)  # or it raises, and then no cut may have been closed
        closed = self._cut(lane_id)
        header = projector[0]
        line = f"lane {lane_id}: projector {header.version}, unit {header.unit_tokens} tokens, {header.compute_dtype}"
        self._say(About(line, lane_id=lane_id))
        return closed

    def _relearn(self, order: Order, author: str) -> list[ClosedCut]:
        lane_id = order.lane.lane_id
        closed = self._cut(lane_id)
        if self._lanes.forget(lane_id, order.version):
            self._say(About(f"lane {lane_id}: learns again, ordered by {author or 'unknown'}", lane_id=lane_id))
        return closed

    def _cut(self, lane_id: str) -> list[ClosedCut]:
        return [p.close() for p in self._partitions.values() if p.has_window(lane_id)]

    def _heartbeat(self) -> Heartbeat:
        busy_ms = {f"{phase}_ms": round(1000 * s) for phase, s in self._watch.busy_s.items()}
        kafka = self._settings.kafka
        return Heartbeat(
            process_id=f"encode-{kafka.instance}@{socket.gethostname()}:{os.getpid()}",
            kind="encode",
            as_of_ms=_now_ms(),
            started_at_ms=self._started_at_ms,
            version=version("stream-interp"),
            partitions=[f"{kafka.topic_prefix}{ACTIVATIONS}/{p}" for p in sorted(self._partitions)],
            counters={**self._counters, **busy_ms},
        )

    def _observed(self) -> Snapshot:
        readings = encode_readings(self._counters, self._account, self._sae_bytes + self._ways.made_bytes)
        topic = self._settings.kafka.topic_prefix + ACTIVATIONS
        return Snapshot(
            missing=() if self._reader.assigned else (ASSIGNMENT_RECEIVED,),
            readings=(*readings, *self._watch.readings(), *input_readings(topic, self._reader.lags())),
        )

    def _say_limits(self, sites: Sequence[Site]) -> None:
        for site in sites:
            self._say(site_line(site))
        n, has_examples = self._reader.count_partitions(), any(site.examples for site in sites)
        bound = memory_bound_bytes(self._settings.request, n, self._sae_bytes, has_examples)
        self._say(f"holds at most {bound:,} bytes of state and buffers with all {n} partitions of {ACTIVATIONS}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
