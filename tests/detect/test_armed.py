"""The score tests of a window in one pass, against one request after the other with `esr.update`."""

from __future__ import annotations

import numpy as np
import pytest

from stream_interp.detect.armed import StratumTests, scores
from stream_interp.detect.armed.scores import ScoreEvidence, ScorePeaks
from stream_interp.drift import esr, exceedance
from tests.detect.lanes import Driver


@pytest.fixture(scope="module")
def learnt() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    return driver


def _one_by_one(
    tests: StratumTests, evidence: ScoreEvidence, rows: np.ndarray, w: float, a_weeks: np.ndarray
) -> tuple[ScoreEvidence, ScorePeaks]:
    over = exceedance.exceeds(tests.scores, rows)
    m, cusum, since = evidence.m, evidence.cusum.copy(), evidence.n_since.copy()
    peak, first = np.zeros(len(a_weeks)), np.zeros(len(a_weeks), np.int64)
    cell_peak = np.zeros(tests.scores.thresholds.shape)
    lam, log_norm = exceedance.LOG_ODDS, tests.scores.log_norm
    for i, row in enumerate(over):
        fired = np.flatnonzero(row.ravel())
        m = esr.update(m, w / len(over), 1, tests.scores.null_rates.ravel(), "up", fired, np.ones(len(fired)))
        for cell, x in enumerate(row.ravel()):
            cusum[cell] = cusum[cell] + lam[2] * x - log_norm[2, cell]
            since[cell] = since[cell] + 1 if cusum[cell] > 0 else 0
            cusum[cell] = max(cusum[cell], 0.0)
        value = exceedance.value(tests.scores, m)
        peak, cell_peak = np.maximum(peak, value), np.maximum(cell_peak, exceedance.cells(tests.scores, m))
        first = np.where((first == 0) & (value >= a_weeks), i + 1, first)
    if not len(over):
        m = m + w
    return ScoreEvidence(m, cusum, since), ScorePeaks(peak, cell_peak, first)


@pytest.mark.parametrize("requests_a_window", [0, 1, 7, scores._BLOCK_REQUESTS + 5])
@pytest.mark.parametrize("drift", [1.0, 1.3, 50.0])
def test_a_window_in_one_pass_equals_one_request_after_the_other(
    learnt: Driver, requests_a_window: int, drift: float
) -> None:
    """From silence to saturation; missing and infinite scores among them."""
    assert learnt.state.tests is not None
    assert learnt.state.evidence is not None
    tests, slow = learnt.state.tests.unit, learnt.state.evidence.unit.scores
    a_weeks = learnt.state.tests.score_thresholds()
    (window,) = learnt.windows[-1:]
    known, rng = window.arrays["request_scores"], np.random.default_rng(2)
    fast, crossed = slow, False
    for k in range(6):
        rows = known[rng.integers(len(known), size=requests_a_window)] * np.float32(drift**k)
        rows[rng.random(rows.shape) < 0.05] = np.nan
        rows[rng.random(rows.shape) < 0.02] = np.inf
        slow, expected = _one_by_one(tests, slow, rows, 1e-3, a_weeks)
        fast, found = scores.tick(tests.scores, fast, rows, 1e-3, a_weeks)
        crossed = crossed or bool(expected.first_over.any())
        for given, by_one in zip((*found, *vars(fast).values()), (*expected, *vars(slow).values()), strict=True):
            np.testing.assert_allclose(given, by_one, rtol=1e-12)  # `esr.update` has its L by another formula
        np.testing.assert_array_equal(fast.n_since, slow.n_since)
        np.testing.assert_array_equal(found.first_over, expected.first_over)
    assert crossed or drift < 50.0 or not requests_a_window
    assert fast.n_since.dtype == np.int32
