"""One input partition: records in, closed cuts out. Pure: record timestamps and the monotonic clock are arguments."""

from __future__ import annotations

import base64
from collections import Counter

from stream_interp.encode.assembly import MAX_OPEN_REQUESTS, Assembly, Incomplete, request_key, whole
from stream_interp.encode.lanes import LaneEntry, Lanes
from stream_interp.encode.open_cut import ClosedCut, OpenCut
from stream_interp.encode.position import Position
from stream_interp.errors import InvalidSnapshot
from stream_interp.records.consumed import Consumed
from stream_interp.records.cut import OpenRequest, Reason
from stream_interp.records.dlq import DeadLetter, base64_headers
from stream_interp.records.snapshot import Snapshot, decode_snapshot
from stream_interp.settings import Settings


class InputPartition:
    """The state of one partition of `interp.activations`; dropped when the partition is revoked.

    Args:
        topic, partition: which.
        lanes: shared by all partitions of the process.
        settings: `window`, `request` and `dlq.payload`.
        position: where the last cut left it; at the first start `Position(b=low)`.
        low: the log's first offset now. What lay below it and was not read enters the next cut as `expired`.
        now_s: monotonic seconds.

    Attributes:
        next_offset: the next record to read is here or later. Starts at `read_from`, or at `low` if that is gone.
        cut: the open cut.
    """

    def __init__(
        self, topic: str, partition: int, lanes: Lanes, settings: Settings, position: Position, low: int, now_s: float
    ) -> None:
        self.topic, self.partition = topic, partition
        self.next_offset = max(position.read_from, low)
        self._lanes, self._settings = lanes, settings
        self._assembly = Assembly(settings.request)
        self._ts, self._dropped, self._to_rebuild = position.ts, dict(position.dropped), dict(position.open)
        self.cut = self._open_cut(position.b)
        self._expire(low, now_s)

    @property
    def due(self) -> float:
        """Monotonic time at which the open cut is to be closed; inf: not yet known."""
        return self.cut.deadline_s

    def has_window(self, lane_id: str) -> bool:
        """The lane has an open window here."""
        return lane_id in self.cut.lanes

    def take(self, record: Consumed, now_s: float) -> str:
        """Takes the next record; one that was taken before is ignored. Returns the reason if it is a dead letter."""
        if record.offset < self.next_offset:
            return ""
        self.next_offset = record.offset + 1
        if record.offset < self.cut.a:
            self._rebuild(record)
            return ""
        if self._to_rebuild:
            self._end_rebuild(now_s)
        self.cut.records += 1
        self._grow_old(record.timestamp_ms, now_s)
        try:
            self._place(self._decoded(record), record, now_s)
        except InvalidSnapshot as error:
            self.cut.reject(self._letter(record, error), record.key, now_s)
            return error.reason
        return ""

    def close(self) -> ClosedCut:
        """Closes the cut right behind the last record taken and opens the next one there."""
        b = max(self.next_offset, self.cut.a)
        open_requests = self._to_rebuild or self._assembly.summary()
        position = Position(b=b, ts=self._ts, open=open_requests, dropped=dict(self._dropped))
        closed = ClosedCut(self.cut, position)
        self.cut = self._open_cut(b)
        return closed

    def _open_cut(self, a: int) -> OpenCut:
        return OpenCut(self.topic, self.partition, a, self._settings.window)

    def _decoded(self, record: Consumed) -> Snapshot:
        return decode_snapshot(record.key, record.headers, record.value, self._settings.request.max_bytes)

    def _place(self, snapshot: Snapshot, record: Consumed, now_s: float) -> None:
        """A valid chunk is late, a duplicate, kept, or the last of its request. Raises InvalidSnapshot."""
        entry, key = self._lanes.entry(snapshot), request_key(snapshot)
        if key in self._dropped:
            self._leave_out("late", entry, snapshot.acts_dtype, now_s)
        elif key in self.cut.counted_keys or self._assembly.has_chunk(key, snapshot.chunk):
            self._leave_out("duplicate", entry, snapshot.acts_dtype, now_s)
        elif snapshot.chunks == 1 and key not in self._assembly:
            self.cut.count(key, entry, whole(snapshot, record.offset), 1, now_s)
        else:
            self._assemble(key, snapshot, entry, record.offset, now_s)

    def _assemble(self, key: str, snapshot: Snapshot, entry: LaneEntry, offset: int, now_s: float) -> None:
        request = self._assembly.add(key, snapshot, entry, offset, self._ts)
        for dropped in self._assembly.too_large(key):
            self._drop(dropped, now_s)
        if key not in self._assembly or not request.complete:
            return
        self._assembly.take_out(key)
        try:
            self.cut.count(key, entry, request.joined(offset), len(request.chunks), now_s)
        except InvalidSnapshot:
            del request.chunks[snapshot.chunk]  # that record is the dead letter, the others are left out
            self._drop(request, now_s)
            raise

    def _grow_old(self, timestamp_ms: int, now_s: float) -> None:
        """Requests age by the partition's largest timestamp; so do the memories of dropped ones."""
        if timestamp_ms <= self._ts:
            return
        self._ts = timestamp_ms
        for request in self._assembly.too_old(self._ts):
            self._drop(request, now_s)
        max_age_ms = self._settings.request.max_age_s * 1000
        while self._dropped and self._ts - self._dropped[key := next(iter(self._dropped))] > max_age_ms:
            del self._dropped[key]

    def _drop(self, request: Incomplete, now_s: float) -> None:
        self._give_up(request.key, len(request.chunks), "incomplete", now_s)
        self._lane(request.entry, next(iter(request.chunks.values())).acts_dtype, now_s)["incomplete"] += 1

    def _give_up(self, key: str, records: int, reason: Reason, now_s: float) -> None:
        self.cut.leave_out(reason, records, now_s)
        self.cut.incomplete_requests += 1
        self._dropped[key] = self._ts
        if len(self._dropped) > MAX_OPEN_REQUESTS:
            del self._dropped[next(iter(self._dropped))]

    def _leave_out(self, reason: Reason, entry: LaneEntry, acts_dtype: str, now_s: float) -> None:
        self.cut.leave_out(reason, 1, now_s)
        self._lane(entry, acts_dtype, now_s)[reason] += 1

    def _lane(self, entry: LaneEntry, acts_dtype: str, now_s: float) -> Counter[str]:
        return self.cut.lane(entry, acts_dtype, now_s).window.not_counted

    def _letter(self, record: Consumed, error: InvalidSnapshot) -> DeadLetter:
        value = record.value or b""
        kept = self._settings.dlq.payload == "kept"
        return DeadLetter(
            reason=error.reason,
            detail=f"found {error.found}, expected {error.expected}",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            key_base64=base64.b64encode(record.key or b"").decode(),
            headers_base64=base64_headers(record.headers),
            value_bytes=len(value),
            value_base64=base64.b64encode(value).decode() if kept else None,
        )

    def _rebuild(self, record: Consumed) -> None:
        """Below `a` all is accounted for; only the chunks of requests that were incomplete at `a` are wanted again."""
        try:
            snapshot = self._decoded(record)
            key = request_key(snapshot)
            was = self._to_rebuild.get(key)
            if was is None or record.offset < was.first_offset or self._assembly.has_chunk(key, snapshot.chunk):
                return
            self._assembly.add(key, snapshot, self._lanes.entry(snapshot), record.offset, was.born_ms)
        except InvalidSnapshot:  # it was a dead letter then
            return

    def _end_rebuild(self, now_s: float) -> None:
        """What could not be rebuilt, because the settings have changed, is given up."""
        found = self._assembly.summary()
        for key, was in self._to_rebuild.items():
            if found.get(key) != was:
                if key in found:
                    self._assembly.take_out(key)
                self._give_up(key, was.records, "incomplete", now_s)
        self._to_rebuild = {}

    def _expire(self, low: int, now_s: float) -> None:
        """What the log deleted before it was read: whole offsets, and the first chunks of incomplete requests."""
        gone: dict[str, OpenRequest] = {k: r for k, r in self._to_rebuild.items() if r.first_offset < low}
        for key, request in gone.items():
            del self._to_rebuild[key]
            self._give_up(key, request.records, "expired", now_s)
        if low > self.cut.a:
            self.cut.records += low - self.cut.a
            self.cut.leave_out("expired", low - self.cut.a, now_s)
