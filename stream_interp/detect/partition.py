"""One partition of `interp.windows` as DETECT reads it: records in log order in, lanes' states and events out. Pure."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import msgspec
from msgspec import Struct

from stream_interp.detect.orders import apply_baseline, approve, relearn, resolve, stories_after, supersedes
from stream_interp.detect.state import DetectSettings, LaneState
from stream_interp.detect.step import UNREADABLE_WINDOW, StepResult, fail, go_blind, new_lane, step
from stream_interp.errors import IntegrityError
from stream_interp.records import window
from stream_interp.records.alert import Alert, Position
from stream_interp.records.chunks import Joiner
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import MARKER_TYPE, Marker, Versioned
from stream_interp.records.envelope import header_map, read_json
from stream_interp.records.lane import Lane
from stream_interp.records.window import Window, decode_window

MISSING_BASELINE, UNREADABLE_BASELINE = "missing_baseline", "unreadable_baseline"
UNUSABLE = (IntegrityError, LookupError, TypeError, ValueError, ArithmeticError)  # what a record that lies can lead to

MAX_LANES = 10_000  # a partition: names are the producers', and without a bound they could fill the memory
MAX_LANE_CHARS = 16_384  # of its names together; all records of the lane repeat them

log = logging.getLogger(__name__)

FindBaseline = Callable[[Marker], Versioned | None]


class Progress(Struct, frozen=True, kw_only=True):
    """Travels in the metadata of the committed offset: everything up to `done` has been told.

    Attributes:
        done: position in the windows partition.
        annotated: first offset on `interp.control` whose acks and silences of this partition's lanes were not told.
    """

    done: int
    annotated: int = 0


def read_progress(offset: int | None, metadata: str) -> Progress:
    """Up to where everything has been told, from a committed offset; -1 for nothing, or nothing that can be trusted.

    An offset without metadata is another tool's: what lies before it may never have been told. Then the checkpoint
    alone says what was, and what follows it is told again, with the same `event_id`s.

    Raises:
        IntegrityError: the metadata is not ours.
    """
    if offset is not None and not metadata:
        log.warning(
            "offset %d was committed by another tool than DETECT; what follows the checkpoint is told again", offset
        )
    if not metadata:
        return Progress(done=-1)
    return read_json(metadata.encode(), Progress)


@dataclass
class Told:
    """What one poll leads to, over all partitions.

    Attributes:
        changed: ids of the lanes that a reader should hear of at once.
        windows: (partition, lane_id) of the windows, also of those replayed in silence.
        partitions: that moved on.
    """

    alerts: list[Alert] = field(default_factory=list)
    controls: list[Versioned] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    windows: set[tuple[int, str]] = field(default_factory=set)
    partitions: set[int] = field(default_factory=set)


class WindowsPartition:
    """The lanes of one partition, and where reading stands.

    Args:
        number: of the partition.
        states: lanes as restored from their checkpoints.
        start: the offset at which to read.
        done: position of the last record whose events are on the topics already; up to it `take` is silent.
        settings: for lanes that begin here.
        annotated: of `Progress`.
    """

    def __init__(
        self,
        number: int,
        states: Iterable[LaneState],
        start: int,
        done: int,
        settings: DetectSettings,
        annotated: int = 0,
    ) -> None:
        self.number, self.next_offset, self.done = number, start, done
        self.lanes = {state.lane.lane_id: state for state in states}
        self.counters, self.annotated = Counter[str](), annotated
        self.append_ms = 0  # when the log took the last record that was read
        self._told_up_to, self._settings, self._joiner = done, settings, Joiner()

    @property
    def caught_up(self) -> bool:
        """What was told before a restart has been replayed."""
        return self.next_offset > self._told_up_to

    @property
    def read_from(self) -> int:
        """First offset that a restart needs."""
        oldest = self._joiner.oldest_incomplete()
        return self.next_offset if oldest is None else oldest

    @property
    def metadata(self) -> str:
        """What travels with the committed offset."""
        return msgspec.json.encode(Progress(done=self.done, annotated=self.annotated)).decode()

    def annotated_up_to(self, heard_to: int) -> None:
        """Acks and silences below this offset are told. Another DETECT may have told more than this one has heard."""
        self.annotated = max(self.annotated, heard_to)

    def reached_end(self) -> None:
        """The log is read to its end: nothing is left to be replayed.

        Where another tool moved the group's offset, what was told up to may be the mark of a transaction, not a record.
        """
        self._told_up_to = min(self._told_up_to, self.next_offset - 1)

    def take(self, record: Consumed, find_baseline: FindBaseline, told: Told) -> None:
        """The next record of the partition; its events go into `told`."""
        position = Position(partition=self.number, offset=record.offset)
        self.next_offset, self.append_ms = record.offset + 1, record.timestamp_ms
        state: LaneState | None
        try:
            item = self._whole(record)
            if item is None:
                return
            state = self._lane_of(item, position)
            result = self._apply(state, item, position, record.timestamp_ms, find_baseline)
            if isinstance(item, Window):
                told.windows.add((self.number, state.lane.lane_id))
        except UNUSABLE:
            where = {"topic": record.topic, "partition": self.number, "offset": record.offset}
            log.warning("record %s/%s cannot be used", self.number, record.offset, exc_info=True, extra=where)
            self.counters["unreadable_records"] += 1
            state = self.lanes.get((record.key or b"").decode(errors="replace"))
            if state is None:
                return
            result = fail(state, _fault_of(record), record.timestamp_ms, position)
        self.done = max(self.done, record.offset)
        if result.alerts:
            stories = stories_after(state.stories, result.alerts)
            result = replace(result, state=replace(result.state, stories=stories))
        self.lanes[state.lane.lane_id] = result.state
        if record.offset > self._told_up_to:
            self._tell(state, result, told)

    def _whole(self, record: Consumed) -> Window | Marker | None:
        """The marker or window that this record completes, if it is new to its lane."""
        headers = header_map(record.headers)
        if headers.get("ce_type") == MARKER_TYPE:
            marker = read_json(record.value, Marker)
            return marker if self._is_new(marker.lane, record.offset) else None
        if headers.get("ce_type") != window.CE_TYPE:
            raise ValueError(f"found a record of type {headers.get('ce_type')}, expected a window or a marker")
        window_id, chunk, chunks = headers["ce_window"], int(headers["ce_chunk"]), int(headers["ce_chunks"])
        if chunk and window_id not in self._joiner.incomplete():
            return None  # its first chunk lies before the start of reading, so it was ticked before
        whole = self._joiner.add(window_id, chunk, chunks, record.value or b"", record.offset)
        if whole is None:
            return None
        found = decode_window(whole)
        return found if self._is_new(found.header.lane, record.offset) else None

    def _is_new(self, lane: Lane, offset: int) -> bool:
        state = self.lanes.get(lane.lane_id)
        return state is None or state.position.offset < offset

    def _lane_of(self, item: Window | Marker, position: Position) -> LaneState:
        lane = item.lane if isinstance(item, Marker) else item.header.lane
        known = self.lanes.get(lane.lane_id)
        if known is None and len(self.lanes) >= MAX_LANES:
            raise IntegrityError(f"lane {MAX_LANES + 1:,} of partition {self.number}; does a producer make up names?")
        if known is None and len(repr(lane)) > MAX_LANE_CHARS:
            raise IntegrityError(f"a lane of {len(repr(lane)):,} characters; expected at most {MAX_LANE_CHARS:,}")
        return known or new_lane(lane, self._settings, position)

    def _apply(
        self, state: LaneState, item: Window | Marker, position: Position, append_ms: int, find: FindBaseline
    ) -> StepResult:
        if isinstance(item, Window):
            self.counters.update(windows=1, requests=item.header.requests)
            return step(state, item, position, append_ms)
        self.counters["markers"] += 1
        if item.kind == "blind":
            return go_blind(state, item.after_position, item.at_ms, position)
        if item.kind == "resolve":
            return resolve(state, item, position)
        if item.kind == "relearn":
            return relearn(state, item, position)
        if item.kind == "approve":
            return approve(state, item, position)
        if not supersedes(state, item.version, item.projector_version or item.version):
            return StepResult(replace(state, position=position))
        baseline = find(item)
        if baseline is None:
            return fail(state, MISSING_BASELINE, append_ms, position)
        return apply_baseline(state, baseline, item.drift or state.settings.drift, position)

    def _tell(self, before: LaneState, result: StepResult, told: Told) -> None:
        told.alerts += result.alerts
        told.controls += result.controls
        if result.alerts or before.phase != result.state.phase or before.closed_at_ms == 0:
            told.changed.add(result.state.lane.lane_id)
        told.partitions.add(self.number)


def _fault_of(record: Consumed) -> str:
    is_marker = any(name == "ce_type" and value == MARKER_TYPE.encode() for name, value in record.headers)
    return UNREADABLE_BASELINE if is_marker else UNREADABLE_WINDOW
