"""Page–Hinkley: does the faded sum of deviations from the running mean rise or fall by more than a threshold?

    d = x − mean;  S⁺ = α·S⁺ + d − δ;  S⁻ = α·S⁻ + d + δ;  alarm if S⁺ − min S⁺ > λ or max S⁻ − S⁻ > λ.

Claims no false-alarm rate: its mean follows the stream, and λ is in the stream's units. Source: Page, Continuous
Inspection Schemes, Biometrika 41 (1954), as in river 0.26.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, finite, mean, wiped


@dataclass(frozen=True)
class PageHinkley:
    """Attributes are river's: δ is the change to put up with, λ the threshold, α the fading."""

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 1 - 0.0001


@dataclass(frozen=True)
class State:
    """Of K streams, [K] each."""

    n: Floats
    mean: Floats
    rise: Floats
    fall: Floats
    lowest_rise: Floats
    highest_fall: Floats
    drift: Bools


def start(config: PageHinkley, streams: int) -> State:
    """Before the first observation."""
    zeros = np.zeros(streams)
    none = np.zeros(streams, np.bool_)
    return State(zeros, zeros, zeros, zeros, np.full(streams, np.inf), np.full(streams, -1.0), none)


def step(config: PageHinkley, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation of each stream; returns the new state and which streams alarm."""
    x = finite(x, len(state.n))
    state = wiped(state, start(config, 1))
    n = state.n + 1
    mu = mean(state.mean, n, x)
    deviation = np.subtract(x, mu, out=x)
    rise = config.alpha * state.rise
    rise += deviation
    rise -= config.delta
    fall = config.alpha * state.fall
    fall += deviation
    fall += config.delta
    lowest, highest = np.minimum(state.lowest_rise, rise), np.maximum(state.highest_fall, fall)
    drift = (rise - lowest > config.threshold) | (highest - fall > config.threshold)
    drift &= n >= config.min_instances
    return State(n, mu, rise, fall, lowest, highest, drift), drift
