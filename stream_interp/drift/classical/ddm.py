"""DDM: has the rate of events risen above the lowest it has been by more than three standard deviations?

    p = mean, s = √(p(1 − p)/n);  where p + s is lowest keep p_min, s_min;  alarm if p + s > p_min + 3·s_min.

Claims no false-alarm rate: the minimum is over all past times, each with its own chance to be low. A stream with no
event so far has s_min = 0 and alarms at its first. Source: Gama et al., Learning with Drift Detection, SBIA 2004, as
in river 0.26.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, bits, mean, wiped


@dataclass(frozen=True)
class DDM:
    """Attributes are river's, without the warning zone."""

    warm_start: int = 30
    drift_threshold: float = 3.0


@dataclass(frozen=True)
class State:
    """Of K streams, [K] each."""

    n: Floats
    p: Floats
    p_min: Floats
    s_min: Floats
    drift: Bools


def start(config: DDM, streams: int) -> State:
    """Before the first observation."""
    zeros, infinite = np.zeros(streams), np.full(streams, np.inf)
    return State(zeros, zeros, infinite, infinite, np.zeros(streams, np.bool_))


def step(config: DDM, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.n))
    state = wiped(state, start(config, 1))
    n = state.n + 1
    p = mean(state.p, n, x)
    s = np.sqrt(p * (1 - p) / n)
    warm = n > config.warm_start
    lower = warm & (p + s <= state.p_min + state.s_min)
    p_min, s_min = np.where(lower, p, state.p_min), np.where(lower, s, state.s_min)
    drift = warm & (p + s > p_min + config.drift_threshold * s_min)
    return State(n, p, p_min, s_min, drift), drift
