"""What a finite baseline allows us to say about a rate, simultaneously for all streams of a lane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from stream_interp.drift.esr import Floats

DELTA = 0.001  # a lane's promise may fail with this probability over the draw of its baseline


def clopper_pearson(successes: NDArray[np.integer], n: int, alpha: float) -> tuple[Floats, Floats]:
    """Exact bounds [K], [K]: P(rate < lower) ≤ alpha and P(rate > upper) ≤ alpha, each stream and side by itself.

    Clopper, Pearson: Biometrika 26 (1934). n = 0 gives [0, 1].
    """
    k = successes.astype(np.float64)
    with np.errstate(invalid="ignore"):
        lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)
        upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - alpha), 1.0)
    return lower, upper


def exceedance_bound(k: int, n: int, alpha: float) -> float:
    """Upper 1 − alpha bound on P(new score > the (k+1)-th largest of n calibration scores).

    For a continuous score that probability is Beta(k + 1, n − k) over the draw of the calibration set; ties only
    make it smaller.
    """
    return float(betaincinv(k + 1, n - k, 1 - alpha)) if k < n else 1.0
