"""Evidence that a listed test's rate is back inside its interval: an e-process against "it is still outside".

Null: the rate is still at or beyond the boundary that the alarm was against. Every tick t starts one more likelihood
ratio with weight γ_t = 1/(t(t+1)), Σγ = 1, so that the process can recover from a drift that lasted:
E ← (E + γ_t)·L,  E + (weight not yet started) is an e-process; ≥ 20 rejects the null at 5 %. Silence is not evidence:
without a window nothing moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats

ODDS_RATIOS: Floats = np.geomspace(1.15, 16.0, 8)  # finer than detection's: back may mean just inside the boundary
RECOVERED = 20.0
RECOVERING = 4.0  # enough to say that it seems to be on the way


def update(e: Floats, tick: NDArray[np.int64], p: Floats, alarmed: Direction, n: float | Floats, x: Floats) -> Floats:
    """One tick of K processes.

    Args:
        e: [C, K] before.
        tick: [K] ticks since each process started, from 1.
        p: [K] boundary of the alarm's null.
        alarmed: direction of the alarms; evidence of recovery points the other way.
        n: requests in the tick, of each process where they differ.
        x: [K] requests among them that fired.
    """
    back: Direction = "down" if alarmed == "up" else "up"
    weight = 1.0 / (tick * (tick + 1.0))
    every = np.arange(e.shape[1])
    return esr.update(e + weight, 0.0, n, p, back, every, x, ODDS_RATIOS)
