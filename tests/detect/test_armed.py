"""The score tests of a window in one pass, against one request after the other with `esr.update`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import armed
from stream_interp.drift import esr, exceedance
from tests.detect.lanes import Driver


@pytest.fixture(scope="module")
def learnt() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    return driver


def _one_by_one(tests: armed.Tests, evidence: armed.Evidence, scores: np.ndarray, w: float) -> armed.ScoreCrossing:
    over, a_weeks = exceedance.exceeds(tests.scores, scores), armed.score_thresholds(tests)
    m, cusum, since = evidence.scores, evidence.score_cusum.copy(), evidence.score_n_since.copy()
    peak, first = np.zeros(len(armed.SCORE_TESTS)), np.zeros(len(armed.SCORE_TESTS), np.int64)
    cell_peak = np.zeros(tests.scores.thresholds.shape)
    lam, log_norm = exceedance.LOG_ODDS, tests.scores.log_norm
    for i, row in enumerate(over):
        fired = np.flatnonzero(row.ravel())
        m = esr.update(m, w / len(over), 1, tests.scores.null_rates.ravel(), "up", fired, np.ones(len(fired)))
        for cell, x in enumerate(row.ravel()):
            cusum[cell] = cusum[cell] + lam[1] * x - log_norm[1, cell]
            since[cell] = since[cell] + 1 if cusum[cell] > 0 else 0
            cusum[cell] = max(cusum[cell], 0.0)
        value = exceedance.value(tests.scores, m)
        peak, cell_peak = np.maximum(peak, value), np.maximum(cell_peak, exceedance.cells(tests.scores, m))
        first = np.where((first == 0) & (value >= a_weeks), i + 1, first)
    if not len(over):
        m = m + w
    return armed.ScoreCrossing(armed.Evidence(evidence.rates, m, cusum, since), peak, cell_peak, first)


@pytest.mark.parametrize("requests_a_window", [0, 1, 7, armed._BLOCK_REQUESTS + 5])
@pytest.mark.parametrize("drift", [1.0, 1.3, 50.0])
def test_a_window_in_one_pass_equals_one_request_after_the_other(
    learnt: Driver, requests_a_window: int, drift: float
) -> None:
    """From silence to saturation; missing and infinite scores among them."""
    tests, slow = learnt.state.tests, learnt.state.evidence
    assert tests is not None
    assert slow is not None
    (window,) = learnt.windows[-1:]
    known, rng = window.arrays["request_scores"], np.random.default_rng(2)
    fast, crossed = slow, False
    for k in range(6):
        scores = known[rng.integers(len(known), size=requests_a_window)] * np.float32(drift**k)
        scores[rng.random(scores.shape) < 0.05] = np.nan
        scores[rng.random(scores.shape) < 0.02] = np.inf
        expected = _one_by_one(tests, slow, scores, 1e-3)
        given = replace(window, arrays={**window.arrays, "request_scores": scores})
        found = armed.update_scores(tests, fast, given, 1e-3)
        slow, fast, crossed = expected.evidence, found.evidence, crossed or bool(expected.first_over.any())
        for name in ("peak", "cell_peak", "first_over"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        for name in ("scores", "score_cusum", "score_n_since"):
            np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    assert crossed or drift < 50.0 or not requests_a_window
    assert fast.score_n_since.dtype == np.int32
