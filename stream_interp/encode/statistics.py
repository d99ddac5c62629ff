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


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of n requests, in log order.

    Attributes:
        tokens: [n] counted tokens.
        too_short: [n]; such requests have nothing but their length.
        sums: [n, len(SUMS)] float64.
        target_sum: [n, d_out] float64 over the tokens of the error terms.
        scores: [n, len(SCORES)] float32.
        firings: (token, feature) entries in order of tokens; value float64, the activation, 0 in massive tokens.
        maxima: the features that fired in each request's unit; value float32, the largest activation there.
        fit_x: [k, d_in] float32, the tokens that enter fit moments; where each request's begin: `fit_bounds` [n + 1].
    """

    tokens: NDArray[np.int64]
    too_short: NDArray[np.bool_]
    sums: NDArray[np.float64]
    target_sum: NDArray[np.float64]
    scores: NDArray[np.float32]
    firings: PerFeature
    maxima: PerFeature
    fit_x: torch.Tensor
    fit_bounds: NDArray[np.int64]

    def of(self, start: int, end: int) -> Statistics:
        """Those of the requests from `start` to `end`; no copy."""
        own, bounds = slice(start, end), self.fit_bounds[start : end + 1]
        return Statistics(
            tokens=self.tokens[own], too_short=self.too_short[own], sums=self.sums[own],
            target_sum=self.target_sum[own], scores=self.scores[own], firings=self.firings.of(start, end),
            maxima=self.maxima.of(start, end), fit_x=self.fit_x[bounds[0] : bounds[-1]],
            fit_bounds=bounds - bounds[0],
        )  # fmt: skip
