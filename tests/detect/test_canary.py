"""The self-test: it alarms on schedule and says nothing, and a lane that cannot alarm any more is told of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect import armed
from stream_interp.detect.armed import Tests as LaneTests
from stream_interp.detect.armed.canary import (
    QUIET_REQUESTS,
    WITHIN_REQUESTS,
    Canary,
    canary_tests,
    tick,
)
from stream_interp.detect.armed.features import KINDS
from stream_interp.detect.orders import relearn
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.view import status_of
from stream_interp.records.alert import Position
from stream_interp.records.control import Marker
from stream_interp.records.window import SCORES
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE, Driver, requests
from tests.detect.test_families import header


def lane(features: int, drift: DriftSettings) -> LaneTests:
    arrays = {
        "requests_fired": np.full(features, 5_000), "mag_sum": np.full(features, 2_000.0),
        "calibration_scores": np.random.default_rng(0).standard_normal((2_000, len(SCORES))).astype(np.float32),
    }  # fmt: skip
    return armed.build(header(), arrays, drift)


def planted(n: int) -> Canary:
    return replace(Canary(), since=QUIET_REQUESTS - n)


@pytest.mark.parametrize("n", [1, 500])
@pytest.mark.parametrize("tolerance", [1.0, 1.2, 20.0])
@pytest.mark.parametrize(("features", "per_week"), [(100, 1.0), (65_536, 1e-6)])
def test_every_test_sees_the_planted_shift_in_time(n: int, tolerance: float, features: int, per_week: float) -> None:
    drift = DriftSettings(clock="requests", tolerance=tolerance, false_alarms_per_week=per_week)
    tests, largest = lane(features, drift), 0
    canary = tick(planted(n), tests, drift, n, n / drift.requests_per_week)
    assert set(canary.waiting) == {*map(str, KINDS), "score"}
    while canary.waiting and not canary.deaf:
        largest = canary.since
        canary = tick(canary, tests, drift, n, n / drift.requests_per_week)
    assert canary == Canary()
    assert largest < WITHIN_REQUESTS / 2


def test_all_is_quiet_until_its_time() -> None:
    drift = DriftSettings(clock="requests")
    canary = tick(Canary(), lane(10, drift), drift, QUIET_REQUESTS - 1, 0.1)
    assert canary == Canary(since=QUIET_REQUESTS - 1)
    assert tick(canary, lane(10, drift), drift, 1, 0.1).evidence is not None


def test_its_baseline_is_armed_for_every_kind() -> None:
    own = canary_tests(DriftSettings(), with_magnitudes=True)
    assert all(of.armed.any() for of in own.features.values())
    assert set(canary_tests(DriftSettings(), with_magnitudes=False).features) == {"rate up", "rate down"}


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    driver.state = replace(driver.state, canary=planted(8))
    return driver


def test_a_sound_lane_is_not_told_of(driver: Driver) -> None:
    assert driver.feed(requests(np.random.default_rng(2), 400)) == []
    assert driver.state.canary.evidence is None
    assert driver.state.canary.since < 400


def test_a_clock_that_stands_still_makes_the_lane_an_integrity_error_until_it_goes_on(driver: Driver) -> None:
    state = driver.state
    state = replace(state, settings=structs.replace(state.settings, drift=DriftSettings(clock="closed_at")))
    learnt = len(driver.windows)
    driver.feed(requests(np.random.default_rng(3), 3_000))
    told, stopped_ms = [], state.closed_at_ms  # a clock that falls behind is told at once
    for k, window in enumerate(driver.windows[learnt:]):
        closed_at_ms = stopped_ms if k < 200 else window.header.closed_at_ms
        stopped = replace(window, header=structs.replace(window.header, closed_at_ms=closed_at_ms))
        result = step(state, stopped, Position(partition=0, offset=window.header.cut.b - 1), window.header.closed_at_ms)
        state = load_state(dump_state(result.state))
        told += [(a.transition, a.severity, a.cause_hint) for a in result.alerts]
        if k == 199:
            assert status_of(state, 0, 0).state == "integrity_error"
            assert "rate up" in status_of(state, 0, 0).reason
    assert told == [("integrity_error", "critical", "canary"), ("integrity_restored", "info", "canary")]
    assert status_of(state, 0, 0).state == "ok"


def test_learning_again_ends_it(driver: Driver) -> None:
    state = replace(driver.state, canary=Canary(deaf=True))
    marker = Marker(kind="relearn", lane=LANE, version=state.closed_at_ms + 1)
    result = relearn(state, marker, Position(partition=0, offset=9_999))
    assert [(a.transition, a.cause_hint) for a in result.alerts] == [("integrity_restored", "canary")]
    assert result.state.canary == Canary()
