"""FET: is the rate of events in the last values another than in the first ones, by Fisher's exact test?

With s₀ events in the first n₀ values, s in the last w:  alarm if P[H ≥ s] or P[H ≤ s] ≤ α/2,
H hypergeometric: w drawn from n₀ + w values of which s₀ + s are events.

Exact for one comparison, whatever the rate; tests at every step, so α does not bound the run length. Source: Fisher's
exact test as a monitor, Ross, Tasoulis, Adams, Sequential Monitoring of a Bernoulli Sequence When the Pre-Change
Parameter Is Unknown, Computational Statistics 28 (2013). The first values are frozen as in our CUSUM; there is no
threshold from simulated run lengths, which takes thousands of simulations a rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from stream_interp.drift.classical.common import Bools, Floats, bits


@dataclass(frozen=True)
class FET:
    """`alpha` α, `reference_size` n₀, `window_size` w."""

    alpha: float = 0.0001
    reference_size: int = 100
    window_size: int = 50


@dataclass(frozen=True)
class State:
    """Of K streams, [K]: values counted, events in the first values and in the last.

    `window` holds the last values of all streams, oldest first.
    """

    n: Floats
    reference: Floats
    events: Floats
    window: tuple[Bools, ...]
    drift: Bools


def start(config: FET, streams: int) -> State:
    """Before the first observation."""
    zeros, none = np.zeros(streams), np.zeros(streams, np.bool_)
    return State(zeros, zeros, zeros, (none,) * (config.window_size - 1), none)


def step(config: FET, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.n))
    alarmed = state.drift
    if alarmed.any():  # the window stays: what a wiped stream no longer counts has left it before it is full again
        n, reference, events = (np.where(alarmed, 0.0, v) for v in (state.n, state.reference, state.events))
        state = replace(state, n=n, reference=reference, events=events)
    n, window = state.n + 1, (*state.window, x == 1)
    learning, full = n <= config.reference_size, n == config.reference_size + config.window_size
    reference, events = state.reference + learning * x, state.events + ~learning * x
    few, many = _limits(config)
    at = reference.astype(np.intp)
    drift = full & ((events <= few[at]) | (events >= many[at]))
    return State(n - full, reference, events - (full & window[0]), window[1:], drift), drift


@lru_cache(maxsize=8)
def _limits(config: FET) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each s₀, the largest s that is too few and the smallest that is too many; −1 and w + 1: none."""
    n0, w = config.reference_size, config.window_size
    s0, s = np.arange(n0 + 1)[:, None], np.arange(w + 1)
    law = hypergeom(n0 + w, s0 + s, w)
    few, many = law.cdf(s) <= config.alpha / 2, law.sf(s - 1) <= config.alpha / 2
    return few.sum(axis=1) - 1, w + 1 - many.sum(axis=1)
