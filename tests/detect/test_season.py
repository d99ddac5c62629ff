"""Rates that follow the hour of the week: silent with the season known, alarming without, and still seeing drift."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from stream_interp.detect import armed
from stream_interp.detect.armed import season
from stream_interp.detect.armed.features import DIRECTIONS, Kind, build, null_at
from stream_interp.detect.crossings import crossings
from stream_interp.detect.hours import HOURS, hour_of_week
from stream_interp.records.alert import Measure
from stream_interp.settings import DriftSettings
from tests.detect.test_families import RATE, STRENGTH, N, baseline_arrays, header, window

HOUR_MS = 3_600_000
NIGHT = np.where(np.arange(HOURS) % 24 < 8, 0.25, 1.375)  # the mean over a day is 1


def arrays() -> dict[str, np.ndarray]:
    requests = np.full(HOURS, N // HOURS)
    return {
        **baseline_arrays(np.random.default_rng(0)), "hour_requests": requests, "hour_fired": requests * NIGHT * 40.0,
    }  # fmt: skip


def drift(seasonality: Literal["off", "hour_of_week"]) -> DriftSettings:
    return DriftSettings(clock="requests", requests_per_week=10_000, seasonality=seasonality)


def alarms_after(seasonality: Literal["off", "hour_of_week"], change: float, seed: int) -> int | None:
    """Windows until a feature's test crosses, 32 requests an hour over two weeks; None: none did."""
    tests, rng = armed.build(header(), arrays(), drift(seasonality)), np.random.default_rng(seed)
    evidence = armed.no_evidence(tests)
    for hour in range(2 * HOURS):
        rate = RATE * NIGHT[hour_of_week(hour * HOUR_MS)]
        rate[400:] *= change
        at_ms = hour * HOUR_MS
        tick = armed.update(tests, evidence, window(rng, np.minimum(rate, 0.95), STRENGTH), 32 / 10_000, at_ms)
        evidence = tick.evidence
        if crossings(tests, tick).groups & {"features", "magnitude", "means"}:
            return hour
    return None


@pytest.mark.parametrize("seed", range(3))
def test_a_known_rhythm_is_no_drift_and_an_unknown_one_is(seed: int) -> None:
    assert alarms_after("hour_of_week", 1.0, seed) is None
    assert alarms_after("off", 1.0, seed) is not None


def test_drift_is_seen_through_the_rhythm() -> None:
    assert alarms_after("hour_of_week", 2.5, seed=4) is not None


def test_hours_with_few_requests_have_the_widest_factor() -> None:
    thin = arrays()
    thin["hour_requests"][5] = thin["hour_fired"][5] = 3
    of = season.build(thin, drift("hour_of_week"))
    assert of is not None
    assert of.up[5] == of.up.max()
    assert of.down[5] == of.down.min()
    assert (of.up[6], of.down[6]) == (of.up[7], of.down[7])


def test_factors_are_bounds_that_close_in_on_the_hour() -> None:
    few, many = arrays(), arrays()
    many["hour_requests"], many["hour_fired"] = many["hour_requests"] * 100, many["hour_fired"] * 100
    for made, margin in ((few, 0.5), (many, 0.05)):
        of = season.build(made, drift("hour_of_week"))
        assert of is not None
        assert (of.down < NIGHT).all()
        assert (of.up > NIGHT).all()
        np.testing.assert_allclose(of.up / of.down, 1, atol=margin)


def test_an_hour_in_which_nothing_fired_is_no_null_of_0() -> None:
    empty = arrays()
    empty["hour_fired"][5] = 0
    of = season.build(empty, drift("hour_of_week"))
    assert of is not None
    assert of.up[5] > 0
    assert of.down[5] == 0


def test_without_hours_or_without_the_setting_there_is_no_season() -> None:
    assert season.build(arrays(), drift("off")) is None
    assert season.build(baseline_arrays(np.random.default_rng(0)), drift("hour_of_week")) is None


@pytest.mark.parametrize(("measure", "follows"), [("rate", True), ("magnitude", True), ("magnitude_when_fired", False)])
def test_a_null_follows_the_factor(measure: Measure, follows: bool) -> None:
    fired = np.round(RATE * N).astype(np.int64)
    up, down = (build(Kind(measure, d), N, fired, fired * STRENGTH, 1e-6, drift("off"), deff=1.0) for d in DIRECTIONS)
    for tests, of in ((up, null_at(up, 3.0)), (down, null_at(down, 3.0))):
        p, ratio = tests.p[tests.armed].astype(np.float64), of[tests.armed] / tests.p[tests.armed]
        if not follows:
            np.testing.assert_array_equal(ratio, 1)
            continue
        np.testing.assert_allclose(ratio[p < 1e-3], 3, rtol=1e-2)
        assert (of[tests.armed] <= 1).all()
    assert not follows or (null_at(down, 3.0)[down.armed] < 1).all()  # a feature that fires always is no fall


def test_hours_of_the_week_begin_on_monday_in_utc() -> None:
    assert hour_of_week(0) == 3 * 24  # 1970-01-01 was a Thursday
    assert hour_of_week(4 * 24 * HOUR_MS) == 0
