"""Rates that follow the hour of the week: one factor for all features of a lane, known before the request.

The factor of an hour is how many features fired a request in it, over how many did in the whole baseline; for up-tests
the upper and for down-tests the lower bound of it, at three standard errors if requests' numbers of features spread as
widely as they are large, or in an hour where nothing fired at three of its n requests. An e-SR with a null that moves
stays valid if that is known before the request (`drift.esr`, E[x | past] ≤ p_t). What one factor cannot follow,
features with a rhythm of their own, is drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_interp.detect.hours import hour_of_week
from stream_interp.drift.esr import Direction, Floats
from stream_interp.records.arrays import Arrays
from stream_interp.settings import DriftSettings

MIN_REQUESTS = 200  # of an hour in the baseline; one with fewer has the widest factor of all that have enough


@dataclass(frozen=True)
class Season:
    """[168] bounds of the factors by hour of the week, UTC, for up-tests and for down-tests."""

    up: Floats
    down: Floats

    def factor(self, direction: Direction, at_ms: int) -> float:
        """Of the null rates at a time, Unix epoch ms."""
        return float((self.up if direction == "up" else self.down)[hour_of_week(at_ms)])


def build(arrays: Arrays, drift: DriftSettings) -> Season | None:
    """None where it is not asked for, or the baseline knows no hours."""
    if drift.seasonality == "off" or "hour_requests" not in arrays:
        return None
    requests, fired = arrays["hour_requests"].astype(np.float64), arrays["hour_fired"].astype(np.float64)
    known, total = requests >= MIN_REQUESTS, fired.sum() / max(requests.sum(), 1)
    if not known.any() or total == 0:
        return None
    n = np.maximum(requests, 1)
    factor, spread = fired / n / total, 3 / np.sqrt(n)
    up, down = factor * (1 + spread) + 3 / n, factor * np.maximum(1 - spread, 0)
    return Season(np.where(known, up, up[known].max(initial=1.0)), np.where(known, down, down[known].min(initial=1.0)))
