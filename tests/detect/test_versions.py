"""ENCODE and DETECT end with the same projector, in whatever order each hears of what operators want."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.operators import Operators
from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.state import DetectSettings
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import (
    ControlReader,
    Order,
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
SETTINGS = Settings(drift=DRIFT, baseline=BaselineSettings(requests=20))
REQUESTS = requests(np.random.default_rng(1), 4)
FIRST = Snapshot(
    model_id=LANE.model_id, hook_name=LANE.hook_name, request_id="0", acts=REQUESTS[0].acts, acts_dtype="float32",
    request_tokens=len(REQUESTS[0].acts),
)  # fmt: skip
START_MS, EVERYTHING = 1_000_000, 10**6


class EncodeTwin:
    """What ENCODE does with `interp.control`, one record at a time."""

    def __init__(self, skew_ms: int) -> None:
        self.lanes, self.reader, self.read, self.skew_ms = (
            Lanes([Site(SiteSettings(), SAE, d_out=D_IN)]),
            ControlReader(),
            0,
            skew_ms,
        )

    def follow(self, log: list[Consumed]) -> None:
        for record in log[self.read :]:
            whole = self.reader.add((record.key or b"").decode(), record.value)
            if whole is not None and whole.manifest.kind == "projector":
                projector = read_projector(whole)
                if not self.lanes.outdated(projector[0]):
                    self.lanes.apply(projector)
            elif whole is not None and whole.manifest.kind == "relearn":
                read_order(whole)
                self.lanes.forget(whole.manifest.lane.lane_id, whole.manifest.version)
        self.read = len(log)

    @property
    def version(self) -> int:
        return self.lanes.entry(FIRST).shape.projector_version


@dataclass
class World:
    """Two ENCODEs, one DETECT, operators, each with a clock and a place in the logs of its own."""

    skews_ms: tuple[int, int]
    now_ms: int = START_MS
    control: list[Consumed] = field(default_factory=list)
    log: list[Consumed] = field(default_factory=list)
    records: list[Versioned] = field(default_factory=list)
    done: int = -1
    offset: int = 0

    def __post_init__(self) -> None:
        self.encoders = [EncodeTwin(skew) for skew in self.skews_ms]
        self.crash()

    def crash(self) -> None:
        """DETECT begins anew, from the log."""
        self.partition = WindowsPartition(
            0, [], 0, self.done, DetectSettings(drift=DRIFT, baseline_requests=SETTINGS.baseline.requests)
        )
        self.operators, self.watch, self.heard = Operators(), LaneWatch(0), 0

    def publish(self, record: Versioned) -> None:
        self.records.append(record)
        for e in encode_control(record):
            self.control.append(
                Consumed("interp.control", 0, len(self.control), self.now_ms, e.key, list(e.headers), e.value)
            )

    def append(self, e: Envelope) -> None:
        self.log.append(Consumed("interp.windows", 0, len(self.log), self.now_ms, e.key, list(e.headers), e.value))

    def next_version(self, skew_ms: int) -> int:
        """As the command line has it."""
        return max(self.now_ms + skew_ms, max((r.manifest.version for r in self.records), default=0) + 1)

    def window(self, k: int) -> None:
        """A window of one ENCODE."""
        self.now_ms += 100
        shape = self.encoders[k].lanes.entry(FIRST).shape
        (window,) = windows(REQUESTS, shape, len(REQUESTS), self.offset)
        closed_at_ms = self.now_ms + self.encoders[k].skew_ms
        for record in window_records(
            [replace(window, header=structs.replace(window.header, closed_at_ms=closed_at_ms))]
        ):
            self.append(record)
        self.offset += len(REQUESTS)

    def follow(self, k: int) -> None:
        self.encoders[k].follow(self.control)

    def hear(self) -> None:
        """DETECT reads control to its end."""
        for record in self.control[self.heard :]:
            self.operators.add(record)
        self.heard = len(self.control)

    def detect(self, records: int) -> None:
        """DETECT takes so many records; where it has read all, it writes the markers that are due."""
        self.hear()
        told = Told()
        for record in self.log[self.partition.next_offset :][:records]:
            self.partition.take(record, self.operators.find, told)
        for made in told.controls:
            self.publish(made)
        self.done = max(self.done, self.partition.done)
        if self.partition.next_offset < len(self.log):
            return
        state = self.partition.lanes.get(LANE.lane_id)
        for newest in self.operators.newest_baselines():
            if (marker := self.watch.baseline_marker(state, newest, DRIFT)) is not None:
                self.append(marker_record(marker))
        for manifest, order in self.operators.step_orders():
            if state is not None and (marker := self.watch.order_marker(state, manifest, order, SETTINGS)) is not None:
                self.append(marker_record(marker))

    def relearn(self, skew_ms: int) -> None:
        order = Order(kind="relearn", lane=LANE, version=self.next_version(skew_ms))
        self.publish(make_order(order, "ann", "wanted"))

    def promote(self, skew_ms: int, which: int) -> None:
        baselines = [r for r in self.records if r.manifest.kind == "baseline"]
        if baselines:
            chosen = baselines[which % len(baselines)]
            for record in promoted(self.records, chosen, self.next_version(skew_ms), "ann", "back"):
                self.publish(record)

    def settle(self) -> None:
        """Nobody wants anything any more; everybody hears everything."""
        for _ in range(8):
            for k in range(2):
                self.follow(k)
                self.window(k)
            self.detect(EVERYTHING)


HOUR_MS = 3_600_000
SKEWS = st.sampled_from([0, 0, 200, -200, HOUR_MS, -HOUR_MS])
ACTS = st.one_of(
    st.tuples(st.just("window"), st.integers(0, 1)),
    st.tuples(st.just("window"), st.integers(0, 1)),
    st.tuples(st.just("follow"), st.integers(0, 1)),
    st.tuples(st.just("detect"), st.integers(1, 4)),
    st.tuples(st.just("detect"), st.just(EVERYTHING)),
    st.tuples(st.just("relearn"), SKEWS),
    st.tuples(st.just("promote"), SKEWS, st.integers(0, 3)),
    st.tuples(st.just("crash")),
)


def begun(windows: int, skews_ms: tuple[int, int] = (0, 0)) -> World:
    """A lane that has seen so many windows: the first is *fit*, four are *calibrate*."""
    world = World(skews_ms)
    for _ in range(windows):
        world.window(0)
        world.follow(0)
        world.detect(EVERYTHING)
    return world


def assert_heard(world: World) -> None:
    world.settle()
    state = world.partition.lanes[LANE.lane_id]
    assert state.phase == "armed"
    assert state.projector is not None
    assert [e.version for e in world.encoders] == [state.projector.version] * 2
    counted = state.counted
    world.settle()
    assert world.partition.lanes[LANE.lane_id].counted > counted


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(SKEWS, SKEWS), st.integers(0, 7), st.lists(ACTS, max_size=25))
def test_whatever_happens_the_lane_ends_judged_by_windows_that_encode_makes(skews, windows, acts) -> None:
    world = begun(windows, skews)
    for name, *args in acts:
        getattr(world, name)(*args)
    assert_heard(world)


@pytest.mark.parametrize("windows", range(1, 8))
def test_an_order_to_learn_again_while_learning_ends(windows: int) -> None:
    """ENCODE lets go of the projector, whatever the baseline is called that DETECT has just learnt with it."""
    world = begun(windows)
    world.relearn(0)
    world.window(0)
    world.detect(EVERYTHING)
    assert_heard(world)
    assert world.partition.lanes[LANE.lane_id].relearned


def test_a_baseline_promoted_while_learning_ends() -> None:
    world = begun(5)
    world.relearn(0)
    world.settle()
    world.relearn(0)
    for _ in range(4):
        world.follow(0)
        world.window(0)
        world.detect(EVERYTHING)
    world.promote(0, 0)
    world.window(0)
    world.detect(EVERYTHING)
    assert_heard(world)


def test_a_lane_whose_state_is_lost_learns_again_when_it_is_asked_to() -> None:
    """Its windows are of a projector that DETECT has forgotten: they count for nothing, and coverage says so."""
    world = begun(8)
    world.log, world.done = [], -1
    world.crash()
    world.settle()
    lost = world.partition.lanes[LANE.lane_id]
    assert (lost.phase, lost.counted) == ("fit", 0)
    assert lost.reasons["projector_travelling"] == lost.seen
    world.relearn(0)
    assert_heard(world)
