"""What a finite baseline says holds over the draw of the baseline as often as it claims."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm, poisson

from stream_interp.drift import exceedance
from stream_interp.drift.intervals import clopper_pearson, exceedance_bound

pytestmark = pytest.mark.statistical
ALPHA, DRAWS, FEATURES = 0.05, 4_000, 200
SHAPE, RATES = (DRAWS, FEATURES), np.geomspace(0.001, 0.5, FEATURES)


def may_be(misses: np.ndarray, alpha: float) -> bool:
    """Whether the chance of a miss may be ≤ alpha: its exact lower 99 % bound."""
    return bool(binomtest(int(misses.sum()), len(misses), alpha, "greater").pvalue >= 0.01)


def outside(fired: np.ndarray, n: int, p: np.ndarray, alpha: float) -> np.ndarray:
    """[DRAWS]: whether any of the rates p [K] lies outside its interval; `fired` [DRAWS, K]."""
    low, high = clopper_pearson(np.arange(n + 1), n, alpha)
    return ((p < low[fired]) | (p > high[fired])).any(axis=1)


@pytest.mark.parametrize("n", [200, 1_500])
@pytest.mark.parametrize("world", ["independent", "identical"])
def test_clopper_pearson_holds_for_all_features_at_once(world: str, n: int) -> None:
    rng, same = np.random.default_rng(n), world == "identical"
    p = np.full(FEATURES, 0.05) if same else RATES
    fired = np.repeat(rng.binomial(n, 0.05, (DRAWS, 1)), FEATURES, axis=1) if same else rng.binomial(n, p, SHAPE)
    misses = outside(fired, n, p, ALPHA / (2 * FEATURES))
    assert may_be(misses, ALPHA)
    assert same or misses.mean() >= 0.3 * ALPHA  # not by saying nothing


def test_intervals_that_do_not_share_alpha_do_not_hold_at_once() -> None:
    """Negative control of `may_be`."""
    fired = np.random.default_rng(1).binomial(1_500, RATES, SHAPE)
    assert not may_be(outside(fired, 1_500, RATES, ALPHA / 2), ALPHA)


@pytest.mark.parametrize("ties", ["none", "many"])
def test_the_exceedance_bound_holds_for_each_rank(ties: str) -> None:
    """P(a new score exceeds the threshold), known exactly, against the bound; counts tie all the time."""
    rng, n = np.random.default_rng(2), 750
    scores = rng.standard_normal((n, DRAWS)) if ties == "none" else rng.poisson(6.0, (n, DRAWS))
    columns, shares = [(draw, 1) for draw in range(DRAWS)], np.array(exceedance.EVEN) / sum(exceedance.EVEN)
    together = ALPHA * DRAWS / shares[0]  # so that each threshold has ALPHA
    tests = exceedance.build(scores.astype(np.float32), columns, together, exceedance.EVEN)
    exceed = norm.sf(tests.thresholds) if ties == "none" else poisson.sf(np.floor(tests.thresholds), 6.0)
    for rank, k in enumerate(exceedance.RANKS):
        assert tests.null_rates[0, rank] == pytest.approx(exceedance_bound(k, n, ALPHA))
        assert may_be(exceed[:, rank] > tests.null_rates[:, rank], ALPHA), k
        assert not may_be(exceed[:, rank] > k / n, ALPHA), k  # negative control: the calibration set's own share
