"""Null replay: how many false alarms there are, against how many the budget allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import gammaincinv

from stream_interp.evaluation.alarms import Detector, alarms
from stream_interp.evaluation.requests import Requests

CONFIDENCE = 0.95
_SEED = 0  # first word of the seeds here, so that draws of a null and of a drift have nothing in common
Verdict = Literal["within", "undecided", "exceeded"]


@dataclass(frozen=True)
class NullReplay:
    """Alarms on requests without drift.

    Attributes:
        nominal: alarms that the budget allows in expectation, over all draws.
        by_draw: alarms of each draw.
        by_group: alarms in which each group of tests had a crossing; one alarm may count for several.
    """

    nominal: float
    by_draw: list[int]
    by_group: dict[str, int]

    @property
    def alarms(self) -> int:
        """Over all draws."""
        return sum(self.by_draw)

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """Exact Poisson interval of measured / nominal."""
        low, high = poisson_interval(self.alarms)
        return low / self.nominal, high / self.nominal

    @property
    def verdict(self) -> Verdict:
        """within: the whole interval is at or below 1; exceeded: above; undecided: 1 lies inside."""
        low, high = self.ratio_interval
        return "within" if high <= 1 else "exceeded" if low > 1 else "undecided"


def poisson_interval(count: int) -> tuple[float, float]:
    """Exact two-sided bounds of a Poisson mean. Garwood: Biometrika 28 (1936)."""
    tail = (1 - CONFIDENCE) / 2
    return float(gammaincinv(count, tail)) if count else 0.0, float(gammaincinv(count + 1, 1 - tail))


def replay_null(
    detector: Detector, null: Requests, draws: int, requests: int, seed: int, false_alarms_per_week: float
) -> NullReplay:
    """Draws of so many requests from `null`, independently and with replacement, each from fresh evidence."""
    by_draw, groups = [], Counter[str]()
    for draw in range(draws):
        rng = np.random.default_rng([_SEED, seed, draw])
        found = list(alarms(detector, null.resample(requests, rng)))
        by_draw.append(len(found))
        groups.update(group for alarm in found for group in alarm.groups)
    nominal = draws * requests / detector.requests_per_week * false_alarms_per_week
    return NullReplay(nominal, by_draw, dict(sorted(groups.items())))
