"""KSWIN: do the newest values of a window have another distribution than as many drawn from its older ones?

    alarm if a Kolmogorov–Smirnov test of the last r values against r drawn from the w − r before has p ≤ α and D > 0.1.

α bounds one test, not the run length, and consecutive tests share nearly all values. Source: Raab, Heusinger, Schleif,
Reactive Soft Prototype Computing for Concept Drift Streams, Neurocomputing 2020, as in river 0.26.1.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from stream_interp.drift.classical.common import Bools, Floats, finite
from stream_interp.errors import UsageError

MAX_STREAMS = 100


@dataclass(frozen=True)
class KSWIN:
    """Attributes are river's, but for `seed`: without one an alarm could not be replayed."""

    alpha: float = 0.005
    window_size: int = 100
    stat_size: int = 30
    seed: int = 0


@dataclass(frozen=True)
class State:
    """Of K streams, [K]; `window` [w, K] ends with the newest values; `draws` is where each random generator stands."""

    n: Floats
    window: Floats
    p_value: Floats
    draws: tuple[tuple[Any, ...], ...]
    drift: Bools


def start(config: KSWIN, streams: int) -> State:
    """Before the first observation.

    Raises:
        UsageError: more than `MAX_STREAMS` streams.
    """
    if streams > MAX_STREAMS:
        raise UsageError(
            f"KSWIN on {streams} streams, expected at most {MAX_STREAMS}: each sorts its window and makes a "
            "Kolmogorov–Smirnov test at every observation, some hundred microseconds a stream; use ADWIN for more"
        )
    zeros, none = np.zeros(streams), np.zeros(streams, np.bool_)
    draws = (random.Random(config.seed).getstate(),) * streams
    return State(zeros, np.zeros((config.window_size, streams)), zeros, draws, none)


def step(config: KSWIN, state: State, x: ArrayLike) -> tuple[State, Bools]:
    """Takes one observation of each stream; returns the new state and which streams alarm."""
    x = finite(x, len(state.n))
    first = random.Random(config.seed).getstate()
    draws = [first if alarmed else old for alarmed, old in zip(state.drift.tolist(), state.draws, strict=True)]
    n = np.where(state.drift, 0.0, state.n) + 1
    p_value = np.where(state.drift, 0.0, state.p_value)
    window = np.concatenate([state.window[1:], x[None]])
    full, drift = np.flatnonzero(n >= config.window_size), np.zeros(len(x), np.bool_)
    if len(full):
        drawn, newest = np.empty((len(full), config.stat_size)), window[-config.stat_size :, full].T
        for at, k in enumerate(full.tolist()):
            rows, draws[k] = _draw(config, draws[k])
            drawn[at] = window[rows, k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy falls back from the exact distribution
            distance, p_value[full] = stats.ks_2samp(drawn, newest, axis=1, method="auto")
        drift[full] = (p_value[full] <= config.alpha) & (distance > 0.1)
    return State(n, window, p_value, tuple(draws), drift), drift


def _draw(config: KSWIN, before: tuple[Any, ...]) -> tuple[list[int], tuple[Any, ...]]:
    """Rows of the window's older part, and where the generator then stands."""
    generator = random.Random()
    generator.setstate(before)
    rows = generator.sample(range(config.window_size - config.stat_size), config.stat_size)
    return rows, generator.getstate()
