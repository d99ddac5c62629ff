"""All groups of tests armed, and one budget for them together, whatever the traffic."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect import armed
from stream_interp.drift import budget
from stream_interp.evaluation.alarms import Detector, alarms
from stream_interp.evaluation.null import poisson_interval
from stream_interp.evaluation.requests import Requests
from stream_interp.records.window import SCORES
from stream_interp.settings import DriftSettings
from tests.detect.test_families import header

WEEKS, WINDOW, CHUNK = 50, 128, 20_000
RATE = np.geomspace(0.005, 0.6, 40)
STRENGTH = 0.4
BASELINE = 100_000
DRIFT = DriftSettings(clock="requests")

pytestmark = pytest.mark.statistical


def armed_at(requests_per_week: float, false_alarms_per_week: float = DRIFT.false_alarms_per_week) -> armed.Tests:
    rng = np.random.default_rng(0)
    fired = np.round(RATE * BASELINE).astype(np.int64)
    arrays = {
        "requests_fired": fired, "mag_sum": fired * STRENGTH,
        "calibration_scores": rng.standard_normal((2_000, len(SCORES))).astype(np.float32),
    }  # fmt: skip
    drift = structs.replace(DRIFT, requests_per_week=requests_per_week, false_alarms_per_week=false_alarms_per_week)
    return armed.build(structs.replace(header(), requests=BASELINE), arrays, drift)


def null(rng: np.random.Generator, n: int, rate: np.ndarray) -> Requests:
    request, feature = np.nonzero(rng.random((n, len(rate))) < rate)
    bounds = np.searchsorted(request, np.arange(n + 1))
    scores = rng.standard_normal((n, len(SCORES))).astype(np.float32)
    return Requests(bounds, feature, rng.uniform(0, 2 * STRENGTH, len(feature)), scores)


def boundary(tests: armed.Tests) -> np.ndarray:
    """Rates at the edge of what the up-tests allow."""
    up = tests.unit.features["rate up"]
    return np.where(up.armed, up.p, RATE).astype(np.float64)


def alarms_in(tests: armed.Tests, requests_per_week: float, rate: np.ndarray, seed: int) -> int:
    """Incidents in WEEKS of traffic; a few of them at once, each from fresh evidence."""
    detector, total, rng = Detector(tests, requests_per_week, WINDOW), 0, np.random.default_rng(seed)
    left = int(WEEKS * requests_per_week)
    while left > 0:
        total += sum(1 for _ in alarms(detector, null(rng, min(CHUNK, left), rate)))
        left -= CHUNK
    return total


def test_every_group_is_armed_and_shares_add_up() -> None:
    tests = armed_at(1_000)
    assert set(tests.thresholds) == set(budget.GROUP_SHARES)
    spent = sum(tests.armed_by_group[group] / a for group, a in tests.thresholds.items())
    assert spent == pytest.approx(DRIFT.false_alarms_per_week)


@pytest.mark.parametrize(
    "requests_per_week", [200.0, 2_000.0, pytest.param(20_000.0, marks=[pytest.mark.full, pytest.mark.timeout(3_600)])]
)
@pytest.mark.parametrize("on_the_boundary", [False, True])
def test_alarms_in_50_weeks_stay_within_the_budget(requests_per_week: float, on_the_boundary: bool) -> None:
    """With every rate as in the baseline, and with every rate at the edge of what an up-test allows."""
    tests = armed_at(requests_per_week)
    found = alarms_in(tests, requests_per_week, boundary(tests) if on_the_boundary else RATE, seed=1)
    allowed = WEEKS * DRIFT.false_alarms_per_week
    print(f"{requests_per_week:,.0f} requests a week, boundary {on_the_boundary}: {found} alarms, {allowed:g} allowed")
    assert poisson_interval(found)[0] <= allowed


def test_thresholds_of_a_larger_budget_break_this_one() -> None:
    """The negative control: what is counted above are alarms that can come."""
    tests = armed_at(2_000, 100 * DRIFT.false_alarms_per_week)
    found = alarms_in(tests, 2_000, boundary(tests), seed=1)
    print(f"thresholds of 100 times the budget: {found} alarms")
    assert poisson_interval(found)[0] > WEEKS * DRIFT.false_alarms_per_week
