"""ADWIN: can the window of all values since the last alarm be cut in two whose means differ by more than their spread?

    alarm if |μ₀ − μ₁| > √(2m·v·δ') + ⅔·δ'·m  at any cut, with n₀ values before it and n₁ after,
    v the variance of the window, δ' = ln(2·ln W/δ), m = 1/(n₀ − l + 1) + 1/(n₁ − l + 1), l = `min_window_length`.

Every `clock` values each border of two buckets is tried. δ bounds a check, by a normal approximation, not the run
length. Source: Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, SDM 2007, as in
river 0.26.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stream_interp.drift.classical import adwin_cut, adwin_window
from stream_interp.drift.classical.adwin_window import ADWIN, Window
from stream_interp.drift.classical.common import Bools, finite

__all__ = ["ADWIN", "State", "start", "step"]


@dataclass(frozen=True)
class State:
    """Of K streams; `tick` counts steps modulo `clock`.

    At an alarm `width`, `total` and `variance` of the window are those of what river keeps of it; the buckets are not
    cut, as the next step wipes the stream.
    """

    tick: int
    window: Window
    drift: Bools


def start(config: ADWIN, streams: int) -> State:
    """Before the first observation."""
    return State(0, adwin_window.empty(config, streams), np.zeros(streams, np.bool_))


def step(config: ADWIN, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation of each stream; returns the new state and which streams alarm."""
    x = finite(x, len(state.drift))
    window = adwin_window.wiped(state.window, state.drift) if state.drift.any() else state.window
    window = adwin_window.extended(config, window, x)
    tick, drift = (state.tick + 1) % config.clock, np.zeros(len(x), np.bool_)
    if tick == 0:
        window, drift = adwin_cut.shrunk(config, window)
    return State(tick, window, drift), drift
