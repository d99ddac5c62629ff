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
    # one allocation: freed one by one, arrays of this size go back to the system and are faulted in again each step
    n, mu, rise, fall, lowest, highest = np.empty((6, len(x)))
    np.add(state.n, 1, out=n)
    deviation = np.subtract(x, mean(state.mean, n, x, out=mu), out=x)
    for new, old, drag in ((rise, state.rise, -config.delta), (fall, state.fall, config.delta)):
        np.multiply(config.alpha, old, out=new)
        new += deviation
        new += drag
    np.minimum(state.lowest_rise, rise, out=lowest)
    np.maximum(state.highest_fall, fall, out=highest)
    drift = (rise - lowest > config.threshold) | (highest - fall > config.threshold)
    drift &= n >= config.min_instances
    return State(n, mu, rise, fall, lowest, highest, drift), drift
