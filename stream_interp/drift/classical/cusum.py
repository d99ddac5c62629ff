"""CUSUM: do deviations from a mean learned on the first values add up, beyond a slack, to more than a threshold?

    S⁺ = max(0, S⁺ + (x − μ) − k·σ);  S⁻ = max(0, S⁻ − (x − μ) − k·σ);  alarm if either > h·σ.

μ and σ are those of the first `min_instances` values, then frozen. With both known, k = 0.5 and h = 5 have a two-sided
run length of about 465 on independent normal values; with both estimated it is shorter, and a stream that was constant
while they were learned alarms at its first other value. Source: Page, Continuous Inspection Schemes, Biometrika 41
(1954); the warm-up is that of river's development version (0.26.1 has no CUSUM).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, finite, mean, wiped


@dataclass(frozen=True)
class CUSUM:
    """`slack` k and `threshold` h are in standard deviations."""

    min_instances: int = 30
    slack: float = 0.5
    threshold: float = 5.0


@dataclass(frozen=True)
class State:
    """Of K streams, [K] each; `squares` is the sum of squared deviations of the warm-up."""

    n: Floats
    mean: Floats
    squares: Floats
    rise: Floats
    fall: Floats
    drift: Bools


def start(config: CUSUM, streams: int) -> State:
    """Before the first observation."""
    zeros = np.zeros(streams)
    return State(zeros, zeros, zeros, zeros, zeros, np.zeros(streams, np.bool_))


def step(config: CUSUM, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation of each stream; returns the new state and which streams alarm."""
    x = finite(x, len(state.n))
    state = wiped(state, start(config, 1))
    n = state.n + 1
    learning = n <= config.min_instances
    learned = mean(state.mean, n, x)
    mu = np.where(learning, learned, state.mean)
    squares = np.where(learning, state.squares + (x - state.mean) * (x - learned), state.squares)
    sigma = np.sqrt(squares / (config.min_instances - 1))
    rise = np.where(learning, 0.0, np.maximum(0.0, state.rise + (x - mu) - config.slack * sigma))
    fall = np.where(learning, 0.0, np.maximum(0.0, state.fall - (x - mu) - config.slack * sigma))
    drift = np.maximum(rise, fall) > config.threshold * sigma
    drift &= ~learning
    return State(n, mu, squares, rise, fall, drift), drift
