"""Two ENCODEs, one DETECT, operators, by hand and without Kafka: each hears of the others when the test says so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from msgspec import structs

from stream_interp.detect.checkpoint import Checkpoints, Saved, read_saved, start_of
from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.operators import Operators
from stream_interp.detect.orders import open_incident_id
from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.state import DetectSettings, LaneState
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.records.alert import Alert
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import (
    ControlReader,
    Marker,
    Order,
    OrderKind,
    Versioned,
    encode_control,
    make_order,
    read_order,
    read_projector,
)
from stream_interp.records.envelope import Envelope
from stream_interp.records.promotion import promoted
from stream_interp.records.snapshot import Snapshot
from stream_interp.settings import BaselineSettings, DriftSettings, Settings, SiteSettings
from tests.detect.lanes import D_IN, LANE, SAE, requests, windows
from tests.detect.log import marker_record, window_records

DRIFT = DriftSettings(clock="requests", requests_per_week=20_000)
START_MS, EVERYTHING = 1_000_000, 10**6


class EncodeTwin:
    """What ENCODE does with `interp.control`."""

    def __init__(self, skew_ms: int) -> None:
        self.lanes = Lanes([Site(SiteSettings(), SAE, d_out=D_IN)])
        self.reader, self.read, self.skew_ms = ControlReader(), 0, skew_ms

    def follow(self, log: list[Consumed]) -> None:
        for record in log[self.read :]:
            whole = self.reader.add((record.key or b"").decode(), record.value)
            if whole is not None and whole.manifest.kind == "projector":
                projector = read_projector(whole)
                if not self.lanes.outdated(projector[0]):
                    self.lanes.apply(projector)
            elif whole is not None and whole.manifest.kind == "relearn":
                order = read_order(whole)
                self.lanes.forget(order.lane.lane_id, order.version)
        self.read = len(log)

    def version(self, snapshot: Snapshot) -> int:
        """Of the projector that shapes its next window."""
        return self.lanes.entry(snapshot).shape.projector_version


@dataclass
class World:
    """One lane, learnt from five windows of `size` requests.

    Attributes:
        skews_ms: of the clocks of the two ENCODEs.
        chunk_bytes: windows lie in records of at most so many bytes.
    """

    skews_ms: tuple[int, int] = (0, 0)
    size: int = 4
    chunk_bytes: int = 900_000
    now_ms: int = START_MS
    shift: float = 0.0
    control: list[Consumed] = field(default_factory=list)
    log: list[Consumed] = field(default_factory=list)
    state_topic: dict[str, bytes] = field(default_factory=dict)
    records: list[Versioned] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    done: int = -1

    def __post_init__(self) -> None:
        self.settings = Settings(drift=DRIFT, baseline=BaselineSettings(requests=5 * self.size))
        self.fresh_settings = DetectSettings(drift=DRIFT, baseline_requests=5 * self.size)
        self.encoders = [EncodeTwin(skew) for skew in self.skews_ms]
        self.rng, self.activations, self.next_offset = np.random.default_rng(1), 0, 0
        items = requests(self.rng, 1)
        self.first = Snapshot(
            model_id=LANE.model_id, hook_name=LANE.hook_name, request_id="0", acts=items[0].acts, acts_dtype="float32",
            request_tokens=len(items[0].acts),
        )  # fmt: skip
        self._begin(Saved(), 0, -1)

    def _begin(self, saved: Saved, start: int, done: int) -> None:
        self.partition = WindowsPartition(0, saved.states, start, done, self.fresh_settings)
        self.checkpoints = Checkpoints(saved, start)
        self.operators, self.watch, self.heard = Operators(), LaneWatch(0), 0

    @property
    def lane(self) -> LaneState:
        return self.partition.lanes[LANE.lane_id]

    def publish(self, record: Versioned) -> None:
        self.records.append(record)
        for e in encode_control(record):
            offset = len(self.control)
            self.control.append(Consumed("interp.control", 0, offset, self.now_ms, e.key, list(e.headers), e.value))

    def append(self, *envelopes: Envelope) -> None:
        """One transaction on the windows log; its end takes an offset too."""
        for e in envelopes:
            self.log.append(
                Consumed("interp.windows", 0, self.next_offset, self.now_ms, e.key, list(e.headers), e.value)
            )
            self.next_offset += 1
        self.next_offset += 1

    def next_version(self, skew_ms: int) -> int:
        """As the command line has it."""
        return max(self.now_ms + skew_ms, max((r.manifest.version for r in self.records), default=0) + 1)

    def _window_records(self, k: int) -> list[Envelope]:
        shape = self.encoders[k].lanes.entry(self.first).shape
        items = requests(self.rng, self.size, self.shift)
        (window,) = windows(items, shape, self.size, self.activations)
        self.activations += self.size
        closed_at_ms = self.now_ms + self.encoders[k].skew_ms
        closed = replace(window, header=structs.replace(window.header, closed_at_ms=closed_at_ms))
        return window_records([closed], self.chunk_bytes)

    def window(self, k: int) -> None:
        """A window of one ENCODE."""
        self.now_ms += 100
        self.append(*self._window_records(k))

    def interleaved(self) -> None:
        """A window of each, their chunks in turn, and the end of the second not yet there."""
        self.now_ms += 100
        mine, theirs = self._window_records(0), self._window_records(1)
        both = [record for pair in zip(mine, theirs, strict=False) for record in pair]
        rest = mine[len(theirs) :] + theirs[len(mine) :]
        self.append(*both, *rest)

    def follow(self, k: int) -> None:
        self.encoders[k].follow(self.control)

    def _read(self, records: int) -> Told:
        for record in self.control[self.heard :]:
            self.operators.add(record)
        self.heard, told = len(self.control), Told()
        start = self.partition.next_offset
        for record in [r for r in self.log if r.offset >= start][:records]:
            self.partition.take(record, self.operators.find, told)
        return told

    def detect(self, records: int, checkpoint: bool = False) -> None:
        """DETECT takes so many records; where it has read all, it writes the markers that are due."""
        told = self._read(records)
        if not self.partition.caught_up:
            return
        at_end = not self.log or self.partition.next_offset > self.log[-1].offset
        copies = self.checkpoints.of_incidents(self.partition, told.alerts)
        saves = self.checkpoints.of_all if checkpoint else self.checkpoints.of_new_lanes
        self.state_topic |= {e.key.decode(): e.value or b"" for e in (*copies, *saves(self.partition))}
        self.alerts += told.alerts
        self.done = self.partition.done
        for made in told.controls:
            self.publish(made)
        if at_end:
            self._mark()

    def _mark(self) -> None:
        state = self.partition.lanes.get(LANE.lane_id)
        for newest in self.operators.newest_baselines():
            if (marker := self.watch.baseline_marker(state, newest, DRIFT)) is not None:
                self.append(marker_record(marker))
        for manifest, order in self.operators.step_orders():
            if state is None:
                continue
            if (marker := self.watch.order_marker(state, manifest, order, self.settings)) is not None:
                self.append(marker_record(marker))

    def crash(self, records: int = 0) -> None:
        """DETECT dies with so many records read and nothing of them committed, and begins anew from what is."""
        self._read(records)
        saved = read_saved(self.state_topic)
        done = max(self.done, saved.covered)
        self._begin(saved, start_of(saved, done, 0, self.next_offset, "windows"), done)

    def order(self, kind: OrderKind, skew_ms: int, incident: str = "", baseline: int = 0) -> None:
        version = self.next_version(skew_ms)
        order = Order(kind=kind, lane=LANE, version=version, incident_id=incident, baseline_version=baseline)
        self.publish(make_order(order, "ann", "wanted"))

    def relearn(self, skew_ms: int) -> None:
        self.order("relearn", skew_ms)

    def relearn_unseen(self, skew_ms: int) -> None:
        """Of somebody who has not seen what others have just ordered."""
        version = self.now_ms + skew_ms + 7
        self.publish(make_order(Order(kind="relearn", lane=LANE, version=version), "bo", "wanted"))

    def resolve(self, skew_ms: int) -> None:
        """Of the incident that is open as far as DETECT has told."""
        if (state := self.partition.lanes.get(LANE.lane_id)) is not None and state.incident is not None:
            self.order("resolve", skew_ms, open_incident_id(state))

    def approve(self, skew_ms: int) -> None:
        """The baseline that is in effect as far as DETECT has told."""
        if (state := self.partition.lanes.get(LANE.lane_id)) is not None and state.baseline is not None:
            self.order("approve", skew_ms, baseline=state.baseline.header.version)

    def promote(self, skew_ms: int, which: int) -> None:
        baselines = [r for r in self.records if r.manifest.kind == "baseline"]
        if baselines:
            chosen = baselines[which % len(baselines)]
            for record in promoted(self.records, chosen, self.next_version(skew_ms), "ann", "back"):
                self.publish(record)

    def blind(self, late: bool) -> None:
        """A marker of silence; void where another record of the lane came before it."""
        self.detect(EVERYTHING)
        if (state := self.partition.lanes.get(LANE.lane_id)) is not None:
            after = state.position.offset - late
            self.append(marker_record(Marker(kind="blind", lane=LANE, at_ms=self.now_ms, after_position=after)))

    def drift(self, shift: float) -> None:
        self.shift = shift

    def settle(self) -> None:
        """Nobody wants anything any more; everybody hears everything."""
        for _ in range(8):
            for k in range(2):
                self.follow(k)
                self.window(k)
            self.detect(EVERYTHING)
