"""What requests add to their windows, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

SUMS = ("error_tokens", "x_sq_sum", "err_sq_sum", "x_dot_xhat", "xhat_sq_sum", "l0_sum", "massive_tokens", "norm_sum")


class PerFeature(NamedTuple):
    """Some features of each request with a number each, ordered by request: `bounds` [n + 1], the others [m]."""

    bounds: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[np.floating[Any]]

    def of(self, start: int, end: int) -> PerFeature:
        """Those of the requests from `start` to `end`; no copy."""
        bounds = self.bounds[start : end + 1]
        own = slice(int(bounds[0]), int(bounds[-1]))
        return PerFeature(bounds - bounds[0], self.feature[own], self.value[own])

    def only(self, rows: NDArray[np.bool_]) -> PerFeature:
        """Those of the rows where a mask [n] holds."""
        if rows.all():
            return self
        lengths = np.diff(self.bounds)
        entries = np.repeat(rows, lengths)
        return PerFeature(np.concatenate([[0], np.cumsum(lengths[rows])]), self.feature[entries], self.value[entries])


class SpanStatistics(NamedTuple):
    """What is judged: the unit of each of n requests, and its strata, s in all.

    Attributes:
        bounds: [n + 1] where those of each request begin.
        stratum: [s] place in `stratum_names`.
        scores: [s, len(SCORES)] float32.
        maxima: the features that fired in each; value float32, the largest activation there.
    """

    bounds: NDArray[np.int64]
    stratum: NDArray[np.int64]
    scores: NDArray[np.float32]
    maxima: PerFeature

    def of(self, start: int, end: int) -> SpanStatistics:
        """Those of the requests from `start` to `end`; no copy."""
        bounds = self.bounds[start : end + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        own = slice(first, last)
        return SpanStatistics(bounds - first, self.stratum[own], self.scores[own], self.maxima.of(first, last))

    def only(self, stratum: int) -> tuple[NDArray[np.float32], PerFeature]:
        """Scores and maxima of the requests in a stratum."""
        rows = self.stratum == stratum
        return self.scores[rows], self.maxima.only(rows)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of n requests, in log order.

    Attributes:
        tokens: [n] counted tokens.
        starts: [n] position of the first of them; -1 without one.
        buckets: [n] of each request's group.
        segments: [n] the segment that each names; empty: none.
        too_short: [n]; of such requests only their length, start, segment and stratum enter a window.
        sums: [n, len(SUMS)] float64.
        target_sum: [n, d_out] float64 over the tokens of the error terms.
        firings: (token, feature) entries in order of tokens; value float64, the activation, 0 in massive tokens.
        spans: what is judged of each; the unit is stratum 0, and those have one that are not too short.
        fit_x: [k, d_in] float32, the tokens that enter fit moments; where each request's begin: `fit_bounds` [n + 1].
    """

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    buckets: NDArray[np.int64]
    segments: list[str]
    too_short: NDArray[np.bool_]
    sums: NDArray[np.float64]
    target_sum: NDArray[np.float64]
    firings: PerFeature
    spans: SpanStatistics
    fit_x: torch.Tensor
    fit_bounds: NDArray[np.int64]

    def of(self, start: int, end: int) -> Statistics:
        """Those of the requests from `start` to `end`; no copy."""
        own, bounds = slice(start, end), self.fit_bounds[start : end + 1]
        return Statistics(
            tokens=self.tokens[own], starts=self.starts[own], buckets=self.buckets[own], segments=self.segments[own],
            too_short=self.too_short[own], sums=self.sums[own], target_sum=self.target_sum[own],
            firings=self.firings.of(start, end), spans=self.spans.of(start, end),
            fit_x=self.fit_x[bounds[0] : bounds[-1]], fit_bounds=bounds - bounds[0],
        )  # fmt: skip
