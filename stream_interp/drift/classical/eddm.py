"""EDDM: do events come closer together than they have been?

    d = distance between events, m and s its mean and standard deviation;  v = m + 2s;  alarm if v / max v < β.

Only looks at an event, so it sees no fall of a rate. Claims no false-alarm rate. Source: Baena-García et al., Early
Drift Detection Method, IWKDDS 2006, as in river 0.26.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical.common import Bools, Floats, bits, mean, wiped


@dataclass(frozen=True)
class EDDM:
    """Attributes are river's, without the warning zone."""

    warm_start: int = 30
    beta: float = 0.9


@dataclass(frozen=True)
class State:
    """Of K streams, [K] each; `mean` and `squares` are those of the distances."""

    n: Floats
    events: Floats
    last_event: Floats
    mean: Floats
    squares: Floats
    highest: Floats
    drift: Bools


def start(config: EDDM, streams: int) -> State:
    """Before the first observation."""
    zeros = np.zeros(streams)
    return State(zeros, zeros, zeros, zeros, zeros, np.full(streams, -1.0), np.zeros(streams, np.bool_))


def step(config: EDDM, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation (0 or 1) of each stream; returns the new state and which streams alarm."""
    x = bits(x, len(state.n))
    state = wiped(state, start(config, 1))
    event, n = x == 1, state.n + 1
    events = state.events + event
    distance = n - state.last_event
    mu = np.where(event, mean(state.mean, np.maximum(events, 1), distance), state.mean)
    squares = np.where(event, state.squares + (distance - state.mean) * (distance - mu), state.squares)
    judged = event & (n > config.warm_start)
    spread = mu + 2 * _roots(squares / np.maximum(events - 1, 1), judged)
    higher = judged & (spread > state.highest)
    highest = np.where(higher, spread, state.highest)
    drift = judged & ~higher & (events > config.warm_start) & (spread / highest < config.beta)
    return State(n, events, np.where(event, n, state.last_event), mu, squares, highest, drift), drift


def _roots(variance: Floats, wanted: Bools) -> Floats:
    """√variance where wanted; by Python's power, as river does, whose last bit may differ from that of a root."""
    roots = np.zeros(len(variance))
    roots[wanted] = [v**0.5 for v in variance[wanted].tolist()]
    return roots
