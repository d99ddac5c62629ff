"""EWMA chart: is the exponentially weighted mean further from the running mean than its spread allows?

    z = α·x + (1 − α)·z;  alarm if |z − mean| > L·√(v·α/(2 − α)·(1 − (1 − α)^{2n})),  v the EW variance of x.

Claims no false-alarm rate: mean and variance are those of the stream itself and follow it. Source: Roberts, Control
Chart Tests Based on Geometric Moving Averages, Technometrics 1 (1959), with the variance of river's pull request 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, ew_mean, finite, mean, wiped


@dataclass(frozen=True)
class EWMA:
    """α is the weight of the newest value, `limit` L."""

    min_instances: int = 30
    alpha: float = 0.1
    limit: float = 4.0


@dataclass(frozen=True)
class State:
    """Of K streams, [K] each."""

    n: Floats
    mean: Floats
    ewma: Floats
    ewma_of_squares: Floats
    drift: Bools


def start(config: EWMA, streams: int) -> State:
    """Before the first observation."""
    zeros = np.zeros(streams)
    return State(zeros, zeros, zeros, zeros, np.zeros(streams, np.bool_))


def step(config: EWMA, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation of each stream; returns the new state and which streams alarm."""
    x = finite(x, len(state.n))
    state = wiped(state, start(config, 1))
    first, n = state.n == 0, state.n + 1
    mu = mean(state.mean, n, x)
    z = ew_mean(state.ewma, config.alpha, first, x)
    squares = ew_mean(state.ewma_of_squares, config.alpha, first, x * x)
    variance = np.maximum(squares - z * z, 0.0)  # rounding can take it below 0
    shrinkage = _shrinkage(config.alpha)
    share = shrinkage[np.minimum(n, len(shrinkage) - 1).astype(np.intp)]
    drift = (np.abs(z - mu) > config.limit * np.sqrt(variance) * np.sqrt(share)) & (n >= config.min_instances)
    return State(n, mu, z, squares, drift), drift


@lru_cache(maxsize=8)
def _shrinkage(alpha: float) -> Floats:
    """α/(2 − α)·(1 − (1 − α)^{2n}) for n = 0, 1, … until it no longer changes; by Python, as numpy's powers vary."""
    shares = [0.0]
    while (share := alpha / (2 - alpha) * (1 - (1 - alpha) ** (2 * len(shares)))) != shares[-1]:
        shares.append(share)
    return np.array(shares)
