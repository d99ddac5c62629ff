"""Planted drifts: delay, misses and false alarms over many draws, of the detector and of two dummies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.evaluation.alarms import Detector, alarms
from stream_interp.evaluation.quantiles import quantiles
from stream_interp.evaluation.requests import Requests, mixed, multiplied

OURS = "stream-interp"
_SEED = 1  # first word of the seeds here, so that draws of a null and of a drift have nothing in common
Plant = Callable[[int, np.random.Generator], Requests]  # so many requests of the drift


class Outcome(NamedTuple):
    """One draw: requests from the change to the first alarm, None if none came; alarms before the change."""

    delay: int | None
    false_alarms: int


@dataclass(frozen=True)
class Scored:
    """What one detector did over all draws."""

    name: str
    outcomes: list[Outcome]

    @property
    def missed_share(self) -> float:
        """Draws without an alarm within the horizon."""
        return float(np.mean([outcome.delay is None for outcome in self.outcomes]))

    @property
    def false_alarms(self) -> int:
        """Before the change, over all draws."""
        return sum(outcome.false_alarms for outcome in self.outcomes)

    @property
    def delays(self) -> dict[str, float | None]:
        """Quantiles of the delay, in requests; None where it is that of a draw that was missed."""
        return quantiles([np.inf if outcome.delay is None else outcome.delay for outcome in self.outcomes])


def outcome_of(found: Sequence[int], change: int) -> Outcome:
    """Of the requests with an alarm, counted from 1, where the first `change` requests are null."""
    after = [request - change for request in found if request > change]
    return Outcome(min(after, default=None), len(found) - len(after))


def whole_windows(requests: int, window: int) -> int:
    """So many requests, rounded up."""
    return -(-requests // window) * window


def mixing(null: Requests, drift: Requests, share: float) -> Plant:
    """Each request is with probability `share` one of the drift."""
    return lambda n, rng: mixed(null, drift, share, n, rng)


def multiplying(null: Requests, among: NDArray[np.int64], count: int, ratio: float) -> Plant:
    """Each draw multiplies the rates of `count` features by `ratio`, chosen by chance among those given."""

    def plant(n: int, rng: np.random.Generator) -> Requests:
        features = np.sort(rng.choice(among, count, replace=False))
        return multiplied(null.resample(n, rng), features, null.rate(features), ratio, rng)

    return plant


def evaluate(
    detector: Detector, null: Requests, plant: Plant, draws: int, before: int, horizon: int, seed: int
) -> list[Scored]:
    """The detector, then the dummies, on the same draws: null requests, then `horizon` of the drift.

    Of null requests there are `before`, rounded up to whole windows: none has requests of both.
    """
    before = whole_windows(before, detector.window)
    ours: list[Outcome] = []
    for draw in range(draws):
        rng = np.random.default_rng([_SEED, seed, draw])
        stream = null.resample(before, rng) + plant(horizon, rng)
        ours.append(outcome_of(_until_seen(detector, stream, before), before))
    never, always = outcome_of([], before), outcome_of(range(1, before + horizon + 1), before)
    dummies = [Scored("never fires", [never] * draws), Scored("always fires", [always] * draws)]
    return [Scored(OURS, ours), *dummies]


def _until_seen(detector: Detector, stream: Requests, change: int) -> list[int]:
    """Requests with an alarm, up to the first after the change."""
    found = []
    for alarm in alarms(detector, stream):
        found.append(alarm.request)
        if alarm.request > change:
            break
    return found
