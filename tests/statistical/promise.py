"""The promise "E[false alarms] ≤ nominal" as one check: worlds have to pass it, negative controls have to fail it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats

DIRECTIONS: tuple[Direction, ...] = ("up", "down")
A_REQUESTS = 1_000.0  # threshold of each stream, in the weight of so many requests: small, so that alarms are many
CONFIDENCE = 0.99
SLACK = 1.03  # how far the estimate itself may lie above nominal


class Tick(NamedTuple):
    """One window of K streams: weight w, n units, the truth p [K], which is the null's boundary, and Σx [K]."""

    w: float
    n: float
    p: Floats
    x: Floats


class Measured(NamedTuple):
    """Alarms in units of nominal: the estimate, and its lower bound of `CONFIDENCE`."""

    ratio: float
    lower: float

    @property
    def kept(self) -> bool:
        """Whether the promise may be true."""
        return bool(self.lower <= 1 and self.ratio <= SLACK)


def measure(alarms: Floats, nominal: float, copies: int = 1) -> Measured:
    """From the alarms [G] of independent groups, of which each may have `nominal` in expectation.

    Alarms of one group come in clumps: of `copies` at least where its streams are copies of one another, and otherwise
    as the variance between groups says (a lane whose baseline is an unlucky one). Clumps are taken for Poisson.
    """
    total, expected = float(alarms.sum()), nominal * len(alarms)
    if not total:
        return Measured(0.0, 0.0)
    clump = max(float(copies), float(alarms.var(ddof=1) / alarms.mean()))
    lower = clump * float(gammaincinv(total / clump, 1 - CONFIDENCE))  # Garwood: Biometrika 28 (1936)
    return Measured(total / expected, float(lower / expected))


def alarms_of(ticks: Iterable[Tick], a: float = A_REQUESTS) -> tuple[dict[Direction, Floats], float]:
    """Alarms [K] of the e-SR in each direction, and the nominal alarms of one stream; an alarm resets its stream."""
    state: dict[Direction, Floats] = {}
    alarms: dict[Direction, Floats] = {}
    weight = 0.0
    for tick in ticks:
        weight += tick.w
        fired = np.flatnonzero(tick.x)
        for direction in DIRECTIONS:
            m = state.get(direction, np.zeros((len(esr.ODDS_RATIOS), len(tick.p))))
            m = esr.update(m, tick.w, tick.n, tick.p, direction, fired, tick.x[fired])
            crossed = esr.value(m) >= a
            m[:, crossed] = 0.0
            state[direction] = m
            alarms[direction] = alarms.get(direction, 0.0) + crossed
    return alarms, weight / a
