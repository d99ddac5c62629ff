"""Counting values by size, for histograms. One thread; what is handed out never changes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from stream_interp.observe.board import Distribution, Reading

LATENCY_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Distributions:
    """A histogram metric, by label values.

    Args:
        metric: a histogram of `catalogue.METRICS`.
        bounds: ascending, in the metric's unit.
    """

    def __init__(self, metric: str, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self._metric, self._bounds = metric, tuple(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._totals: dict[tuple[str, ...], float] = {}

    def begin(self, *labels: str) -> None:
        """Values with these labels will come: shown from zero, so that the first is a rise."""
        self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
        self._totals.setdefault(labels, 0.0)

    def add(self, value: float, *labels: str) -> None:
        """Counts one value."""
        self.begin(*labels)
        self._counts[labels][bisect_left(self._bounds, value)] += 1
        self._totals[labels] += value

    def readings(self) -> tuple[Reading, ...]:
        """One for each combination of labels seen so far."""
        return tuple(
            Reading(self._metric, Distribution(self._bounds, tuple(counts), self._totals[labels]), labels)
            for labels, counts in self._counts.items()
        )
