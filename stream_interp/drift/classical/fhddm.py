"""FHDDM: has the rate of ones in the last values fallen below the highest it has been by more than Hoeffding's bound?

    u = mean of the last w values;  alarm if max u − u > √(ln(1/δ)/(2w)).

Sees falls only: its paper feeds it right answers, 1 a hit; negate events to see a rise. δ bounds one comparison, not
the run length. Source: Pesaranghader and Viktor, Fast Hoeffding Drift Detection Method for Evolving Data Streams,
ECML-PKDD 2016, as in river 0.26.1 (without its second, short window).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, bits


@dataclass(frozen=True)
class FHDDM:
    """Attributes are river's."""

    sliding_window_size: int = 100
    confidence_level: float = 0.000001


@dataclass(frozen=True)
class State:
    """Of K streams, [K]; `window` holds the last values of all of them, oldest first, of which a stream counts `n`."""

    n: Floats
    ones: Floats
    highest: Floats
    window: tuple[Bools, ...]
    drift: Bools


def start(config: FHDDM, streams: int) -> State:
    """Before the first observation."""
    zeros, none = np.zeros(streams), np.zeros(streams, np.bool_)
    return State(zeros, zeros, zeros, (none,) * (config.sliding_window_size - 1), none)


def step(config: FHDDM, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.n))
    size = config.sliding_window_size
    alarmed = state.drift
    if alarmed.any():  # the window stays: what a wiped stream no longer counts has left it before it is full again
        n, ones, highest = (np.where(alarmed, 0.0, v) for v in (state.n, state.ones, state.highest))
        state = replace(state, n=n, ones=ones, highest=highest)
    n, ones, window = state.n + 1, state.ones + x, (*state.window, x == 1)
    full = n == size
    rate = ones / size
    highest = np.where(full, np.maximum(state.highest, rate), state.highest)
    epsilon = math.sqrt(math.log(1 / config.confidence_level) / (2 * size))
    drift = full & (highest - rate > epsilon)
    leaves = full & window[0]
    return State(n - full, ones - leaves, highest, window[1:], drift), drift
