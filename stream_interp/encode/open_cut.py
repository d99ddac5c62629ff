"""The cut that is still open on an input partition: its windows, its account, its dead letters."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from stream_interp.encode.examples import OpenExamples
from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.position import Position
from stream_interp.encode.requests import Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.cut import Cut, LaneCount, Reason
from stream_interp.records.dlq import DeadLetter
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.records.window import DTYPE_UNAVAILABLE, FIT, CutRef, Window
from stream_interp.settings import WindowSettings

MAX_WINDOW_BYTES = 256 * 1024 * 1024  # open windows of one partition; more lanes than that only mean more cuts
MAX_LETTERS = 1_000
MAX_LETTER_BYTES = 32 * 1024 * 1024


@dataclass
class LaneWindow:
    """A lane's open window; `seen` counts the requests given to it, encoded or still waiting for that."""

    entry: LaneEntry
    window: OpenWindow
    opened_s: float
    examples: OpenExamples | None
    seen: int = 0


@dataclass(frozen=True)
class Work:
    """A complete request, and the window and the examples that it will enter."""

    window: OpenWindow
    entry: LaneEntry
    request: Request
    examples: OpenExamples | None = None


@dataclass
class OpenCut:
    """From `a` on. `deadline_s` is the monotonic time at which it is due; -inf: at once."""

    topic: str
    partition: int
    a: int
    settings: WindowSettings
    deadline_s: float = math.inf
    records: int = 0
    counted_records: int = 0
    incomplete_requests: int = 0
    not_counted: Counter[Reason] = field(default_factory=Counter)
    rejected_by_reason: Counter[str] = field(default_factory=Counter)
    letters: list[tuple[DeadLetter, bytes | None]] = field(default_factory=list)
    lanes: dict[str, LaneWindow] = field(default_factory=dict)
    counted_keys: set[str] = field(default_factory=set)
    work: list[Work] = field(default_factory=list)
    window_bytes: int = 0
    letter_bytes: int = 0

    @property
    def empty(self) -> bool:
        """Nothing is waiting to be written."""
        return not self.lanes and not self.letters and not self.not_counted

    def count(self, key: str, entry: LaneEntry, request: Request, records: int, now_s: float) -> None:
        """A request is whole: it belongs to this cut, and is encoded if that can be done. `records`: its chunks."""
        lane = self.lane(entry, str(request.acts.dtype), now_s)
        lane.seen += 1
        self.counted_keys.add(key)
        if entry.has_dtype:
            self.work.append(Work(lane.window, entry, request, lane.examples))
            self.counted_records += records
        else:
            self.leave_out("dtype_unavailable", records, now_s)
            lane.window.not_counted[DTYPE_UNAVAILABLE] += 1
        if lane.seen >= self.settings.requests:
            self._due(lane.opened_s + self.settings.min_age_s)

    def leave_out(self, reason: Reason, records: int, now_s: float) -> None:
        """So many records of this cut count nowhere."""
        self.not_counted[reason] += records
        self._grow_old(now_s)

    def reject(self, letter: DeadLetter, key: bytes | None, now_s: float) -> None:
        """A record goes to the dead letters, in the same transaction as this cut."""
        self.leave_out("rejected", 1, now_s)
        self.rejected_by_reason[letter.reason] += 1
        self.letters.append((letter, key))
        self.letter_bytes += sum(len(t) for _, t in letter.headers_base64) + len(letter.value_base64 or "")
        if len(self.letters) >= MAX_LETTERS or self.letter_bytes >= MAX_LETTER_BYTES:
            self._due(-math.inf)

    def lane(self, entry: LaneEntry, acts_dtype: str, now_s: float) -> LaneWindow:
        """The open window of a lane."""
        lane = self.lanes.get(entry.lane_id)
        if lane is None:
            window = OpenWindow(entry.shape, acts_dtype, entry.d_in, entry.d_sae, entry.d_out)
            rule = entry.examples
            examples = OpenExamples(entry.shape.lane, entry.d_sae, rule) if rule else None
            lane = self.lanes[entry.lane_id] = LaneWindow(entry, window, now_s, examples)
            self.window_bytes += window_bytes(entry)
            self._grow_old(now_s)
            if self.window_bytes >= MAX_WINDOW_BYTES:
                self._due(-math.inf)
        return lane

    def _grow_old(self, now_s: float) -> None:
        if self.settings.max_age_s:
            self._due(now_s + self.settings.max_age_s)

    def _due(self, at_s: float) -> None:
        self.deadline_s = min(self.deadline_s, at_s)


@dataclass(frozen=True)
class ClosedCut:
    """A cut whose range is fixed. Its windows may still wait for requests to be encoded (`cut.work`)."""

    cut: OpenCut
    position: Position

    def finish(self, closed_at_ms: int) -> tuple[list[Window], Cut]:
        """The records of the cut, once all its work is done."""
        cut, position = self.cut, self.position
        ref = CutRef(topic=cut.topic, partition=cut.partition, a=cut.a, b=position.b)
        windows = [lane.window.close(ref, closed_at_ms) for lane in cut.lanes.values() if not lane.window.empty]
        counts = {
            w.header.lane.lane_id: LaneCount(lane=w.header.lane, requests=w.header.requests, tokens=w.header.tokens)
            for w in windows
        }
        return windows, Cut(
            topic=cut.topic,
            partition=cut.partition,
            a=cut.a,
            b=position.b,
            read_from=position.read_from,
            closed_at_ms=closed_at_ms,
            records=cut.records,
            counted_records=cut.counted_records,
            pending_records=sum(request.records for request in position.open.values()),
            lanes=counts,
            not_counted=dict(cut.not_counted),
            rejected_by_reason=dict(cut.rejected_by_reason),
            incomplete_requests=cut.incomplete_requests,
            open=position.open,
            dropped=position.dropped,
        )


def window_bytes(entry: LaneEntry) -> int:
    """What an open window of this lane holds, about."""
    r = min(entry.d_in, MOMENT_COORDINATES)
    fits = entry.shape.projector_version == FIT
    moments, strata = 8 * r * r if fits else 0, 0 if fits else 12 * entry.d_sae * entry.shape.blocks
    examples = entry.examples.window_bytes(entry.d_sae) if entry.examples else 0
    return 40 * entry.d_sae + strata + 8 * entry.d_in + moments + examples + 4_096
