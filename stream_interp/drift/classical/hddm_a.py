"""HDDM_A: is the mean of all values further from that up to the best cut point than Hoeffding's bound allows?

    e(n) = √(ln(1/δ)/(2n));  the cut point moves to now where cut mean + e(n_cut) ≥ mean + e(n);
    alarm if mean − cut mean ≥ √(m/2·ln(2/δ)),  m = (n − n_cut)/(n_cut·n);  falls by symmetry.

δ bounds one comparison at a fixed cut point; the cut point is chosen by the data and every step compares, so the
run length is not bounded. Source: Frías-Blanco et al., Online and Non-Parametric Drift Detection Methods Based on
Hoeffding's Bounds, IEEE TKDE 27 (2015), as in river 0.26.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, bits, mean, wiped

_SIGN = np.array([[1.0], [-1.0]])  # a fall is a rise of the negated means, and to negate is exact


@dataclass(frozen=True)
class HDDMA:
    """Attributes are river's, without the warning zone."""

    drift_confidence: float = 0.001
    two_sided_test: bool = False


@dataclass(frozen=True)
class State:
    """Of K streams, [K]; cut points against a rise and a fall [2, K]."""

    n: Floats
    mean: Floats
    cut_n: Floats
    cut_mean: Floats
    drift: Bools


def start(config: HDDMA, streams: int) -> State:
    """Before the first observation."""
    zeros, sides = np.zeros(streams), np.zeros((2, streams))
    return State(zeros, zeros, sides, sides, np.zeros(streams, np.bool_))


def step(config: HDDMA, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.n))
    state = wiped(state, start(config, 1))
    n = state.n + 1
    mu = mean(state.mean, n, x)
    first = state.cut_n == 0
    cut_n, cut_mean = np.where(first, n, state.cut_n), np.where(first, mu, state.cut_mean)
    bound = math.log(1.0 / config.drift_confidence)
    moves = _SIGN * cut_mean + np.sqrt(0.5 / cut_n * bound) >= _SIGN * mu + np.sqrt(0.5 / n * bound)
    cut_n, cut_mean = np.where(moves, n, cut_n), np.where(moves, mu, cut_mean)
    m = (n - cut_n) / cut_n * (1.0 / n)
    epsilon = np.sqrt(m / 2 * math.log(2.0 / config.drift_confidence))
    changed = (cut_n != n) & (_SIGN * (mu - cut_mean) >= epsilon)
    drift = changed.any(axis=0) if config.two_sided_test else changed[0]
    return State(n, mu, cut_n, cut_mean, drift), drift
