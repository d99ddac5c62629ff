"""Is a baseline one distribution? A growing conformal test martingale over its own scores, in log order.

p = (#{earlier scores ≥ v} + 1)/(N + 1), deterministic, is stochastically larger than uniform under exchangeability, so
decreasing bets keep the product a supermartingale. Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

REFUSED = 100.0
_POWERS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])  # bets κ·p^(κ−1): decreasing in p, mean 1 under uniform p


def log_martingale(scores: NDArray[np.floating]) -> float:
    """Largest log of the mixture martingale over the scores [n], in order; NaN are passed over."""
    seen: list[float] = []
    log_m, largest = np.zeros(len(_POWERS)), 0.0
    for v in scores[np.isfinite(scores)].tolist():
        p = (len(seen) - bisect_left(seen, v) + 1) / (len(seen) + 1)
        insort(seen, v)
        log_m += np.log(_POWERS) + (_POWERS - 1) * np.log(p)
        top = log_m.max()
        largest = max(largest, float(top + np.log(np.mean(np.exp(log_m - top)))))
    return largest
