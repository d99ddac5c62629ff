"""What a finite baseline allows us to say about a rate, simultaneously for all streams of a lane."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, xlogy

from stream_interp.drift.esr import Floats

DELTA = 0.001  # a lane's promise may fail with this probability over the draw of its baseline
_BISECTIONS = 60


def clopper_pearson(successes: NDArray[np.number[Any]], n: float | Floats, alpha: float) -> tuple[Floats, Floats]:
    """Exact bounds [K], [K]: P(rate < lower) ≤ alpha and P(rate > upper) ≤ alpha, each stream and side by itself.

    Of dependent units both counts may be divided by the design effect. n = 0 gives [0, 1]. Clopper, Pearson: Biometrika
    26 (1934).
    """
    k = successes.astype(np.float64)
    with np.errstate(invalid="ignore"):
        lower = np.where(k > 0, betaincinv(np.where(k > 0, k, 1.0), n - k + 1, alpha), 0.0)
        upper = np.where(k < n, betaincinv(k + 1, np.where(k < n, n - k, 1.0), 1 - alpha), 1.0)
    return lower, upper


def bounded_mean(total: Floats, n: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Bounds [K], [K] of the mean of n values in [0, 1] whose sum is `total`, each side at 1 − alpha.

    P(n·kl(mean, p) ≥ log(1/alpha), mean below p) ≤ alpha, and the same above: Hoeffding: J. Am. Stat. Ass. 58 (1963),
    theorem 1, with kl between Bernoulli laws, of which the values are the least favourable. n = 0 gives [0, 1].
    """
    mean, reach = total / np.maximum(n, 1), np.log(1 / alpha) / np.maximum(n, 1)
    low, high = _kl_edge(mean, np.zeros_like(mean), reach), _kl_edge(mean, np.ones_like(mean), reach)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def _kl_edge(mean: Floats, end: Floats, reach: Floats) -> Floats:
    """The p farthest from `mean` towards `end` with kl(mean, p) ≤ reach, by bisection, rounded towards `end`."""
    inside, outside = mean.copy(), end.copy()
    for _ in range(_BISECTIONS):
        p = (inside + outside) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = xlogy(mean, mean / p) + xlogy(1 - mean, (1 - mean) / (1 - p))
        within = kl <= reach
        inside, outside = np.where(within, p, inside), np.where(within, outside, p)
    return outside


def quantile_interval(ordered: Floats, q: float, alpha: float) -> tuple[float, float]:
    """Bounds of the q-quantile by order statistics of `ordered` [n ≥ 1], each side at 1 − alpha, for any distribution.

    Values are not negative: without an order statistic that is far enough out the bounds are 0 and inf.
    """
    n = len(ordered)
    below = bdtr(np.arange(n + 1), n, q)  # P(at most k of n lie below the quantile)
    low, high = int(np.searchsorted(below, alpha, side="right")), int(np.searchsorted(below, 1 - alpha))
    return float(ordered[low - 1]) if low else 0.0, float(ordered[high]) if high < n else np.inf


def vouched_ratio(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
    """The ratio by which two pairs of (lower, upper) bounds, of any one shape, lie apart; ≤ 1 where they touch."""
    (low_1, high_1), (low_2, high_2) = one, other
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.fmax(low_2 / high_1, low_1 / high_2)
    return ratio


def exceedance_bound(k: float, n: float, alpha: float) -> float:
    """Upper 1 − alpha bound on P(new score > the (k+1)-th largest of n calibration scores).

    For a continuous score that probability is Beta(k + 1, n − k) over the draw of the calibration set; ties only
    make it smaller. Of dependent requests both numbers may be divided by the design effect.
    """
    return float(betaincinv(k + 1, n - k, 1 - alpha)) if k < n else 1.0
