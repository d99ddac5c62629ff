"""HDDM_W: is the weighted mean since the best cut point further from that before it than McDiarmid's bound allows?

    total, s₁ (before the cut point) and s₂ (since) are EW means of weight λ, each with b = λ² + (1 − λ)²·b, b₀ = 1;
    e = √(b·ln(1/δ)/2);  the cut point moves to now where total + e is lowest;
    alarm if s₂ − s₁ > √((b₁ + b₂)·ln(1/δ)/2);  falls by symmetry.

δ bounds one comparison, not the run length. Source: Frías-Blanco et al., Online and Non-Parametric Drift Detection
Methods Based on Hoeffding's Bounds, IEEE TKDE 27 (2015), as in river 0.26.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, bits, ew_mean, wiped

_SIGN = np.array([[1.0], [-1.0]])  # a fall is a rise of the negated means, and to negate is exact


@dataclass(frozen=True)
class HDDMW:
    """Attributes are river's, without the warning zone."""

    drift_confidence: float = 0.001
    lambda_val: float = 0.05
    two_sided_test: bool = False


@dataclass(frozen=True)
class State:
    """Of K streams, [K]; before and since the cut points against a rise and a fall [2, K].

    `lowest` is that of sign·total + e; each `*_b` is the b of the mean it is named after.
    """

    total: Floats
    total_b: Floats
    lowest: Floats
    before: Floats
    before_b: Floats
    since: Floats
    since_b: Floats
    drift: Bools


def start(config: HDDMW, streams: int) -> State:
    """Before the first observation: b = 1 says that a mean has no value yet."""
    zeros, sides = np.zeros(streams), np.zeros((2, streams))
    infinite, none = np.full((2, streams), np.inf), np.zeros(streams, np.bool_)
    return State(zeros, zeros + 1, infinite, sides, sides + 1, sides, sides + 1, none)


def step(config: HDDMW, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.total))
    state = wiped(state, start(config, 1))
    total, total_b = _weighed(config, state.total, state.total_b, x)
    height = _SIGN * total + _bound(config, total_b)
    moves = height < state.lowest
    since, since_b = _weighed(config, state.since, state.since_b, x)
    since, since_b = np.where(moves, 0.0, since), np.where(moves, 1.0, since_b)
    before, before_b = np.where(moves, total, state.before), np.where(moves, total_b, state.before_b)
    changed = (since_b != 1) & (_SIGN * (since - before) > _bound(config, before_b + since_b))
    drift = changed.any(axis=0) if config.two_sided_test else changed[0]
    lowest = np.where(moves, height, state.lowest)
    return State(total, total_b, lowest, before, before_b, since, since_b, drift), drift


def _weighed(config: HDDMW, old: Floats, b: Floats, x: Floats) -> tuple[Floats, Floats]:
    weight = config.lambda_val
    return ew_mean(old, weight, b == 1, x), weight * weight + (1 - weight) ** 2 * b


def _bound(config: HDDMW, b: Floats) -> Floats:
    return np.sqrt(b * math.log(1 / config.drift_confidence) / 2)
