"""Request-level tests keep the budget whatever calibration set was drawn, and a drift that lasts is not absorbed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_interp.drift import exceedance
from stream_interp.drift.esr import Floats
from stream_interp.drift.exceedance import RANKS, Exceedance
from stream_interp.drift.intervals import DELTA
from tests.statistical.promise import measure

pytestmark = pytest.mark.statistical
LANES = 200  # each with a calibration set of its own: the columns of one array of scores
TESTS = 8  # one-sided score tests of a lane, among which δ is split
A = [10_000.0, 1_000_000.0]  # requests: many alarms expected; about as few as in a lane with the shipped budget
CALIBRATION = [200, 750, 1_500]  # requests


def lanes_of(rng: np.random.Generator, n: int) -> Exceedance:
    scores = rng.standard_normal((n, LANES), np.float32)
    return exceedance.build(scores, [(lane, 1) for lane in range(LANES)], DELTA / 2 / (TESTS * len(RANKS)))


def alarms(tests: Exceedance, scores: Floats, m: Floats, a: float) -> tuple[Floats, Floats]:
    """[LANES] alarms in the requests' scores [n, LANES], and the state after; an alarm resets its lane.

    A request weighs 1, `a` is in requests. All requests at once as long as nothing alarms.
    """
    counts, over = np.zeros(LANES), exceedance.exceeds(tests, scores)
    while len(over):
        states = exceedance.path(tests, m, over, 1.0)
        crossed = exceedance.value(tests, states) >= a
        last = int(np.argmax(crossed.any(axis=1))) if crossed.any() else len(over) - 1
        m, over = states[last], over[last + 1 :]
        m.reshape(len(m), LANES, -1)[:, crossed[last]] = 0.0
        counts += crossed[last]
    return counts, m


def null_alarms(tests: Exceedance, rng: np.random.Generator, requests: int, a: float, block: int = 100) -> Floats:
    total, m = np.zeros(LANES), exceedance.initial(tests)
    for _ in range(requests // block):
        counts, m = alarms(tests, rng.standard_normal((block, LANES), np.float32), m, a)
        total += counts
    return total


@pytest.mark.parametrize("requests", [10_000, pytest.param(100_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("a", A)
@pytest.mark.parametrize("n", CALIBRATION)
def test_null_lanes_stay_within_the_budget(n: int, a: float, requests: int) -> None:
    rng = np.random.default_rng([n, requests])
    measured = measure(null_alarms(lanes_of(rng, n), rng, requests, a), requests / a)
    print(n, a, measured)
    assert measured.kept, measured


@pytest.mark.parametrize("n", [200, pytest.param(750, marks=pytest.mark.full)])
def test_rates_as_the_calibration_set_has_them_break_it(n: int) -> None:
    """Negative control: an estimate in the place of its upper bound."""
    rng, requests, a = np.random.default_rng(n), 10_000, A[0]
    estimated = np.tile((np.array(RANKS) + 1) / (n + 1), (LANES, 1))
    tests = replace(lanes_of(rng, n), null_rates=estimated)
    measured = measure(null_alarms(tests, rng, requests, a, block=10), requests / a)
    print(n, measured)
    assert measured.lower > 1, measured
    assert not measured.kept


@pytest.mark.parametrize(
    ("n", "requests"), [(200, 2_000), *(pytest.param(n, 20_000, marks=pytest.mark.full) for n in CALIBRATION)]
)
def test_a_drift_that_lasts_still_alarms_in_its_last_thousand_requests(n: int, requests: int) -> None:
    rng = np.random.default_rng([n, requests, 1])
    tests = lanes_of(rng, n)
    m, late = exceedance.initial(tests), np.zeros(LANES)
    for request in range(requests):  # all lanes alarm again and again: one request at a time is faster here
        counts, m = alarms(tests, rng.normal(1.5, 1.0, (1, LANES)).astype(np.float32), m, A[1])
        late += counts * (request >= requests - 1_000)
    assert (late > 0).all()
