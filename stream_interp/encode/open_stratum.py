"""The part of an open window that there is once a stratum: which features fired how strongly in how many requests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.encode.statistics import PerFeature
from stream_interp.records.arrays import Arrays
from stream_interp.records.window import SCORES


class OpenStratum:
    """Sums over the requests of a stratum.

    Args:
        d_sae: features.
        cap: [d_sae] float32, what a request's maximum is divided by; None in fit.
    """

    def __init__(self, d_sae: int, cap: NDArray[np.float32] | None) -> None:
        self.requests = 0
        self._cap = cap
        self._fired = np.zeros(d_sae, np.int32)
        self._mag_sum = np.zeros(d_sae)
        self._scores: list[NDArray[np.float32]] = []

    def add(self, scores: NDArray[np.float32], maxima: PerFeature) -> None:
        """Counts requests, in log order: their `scores` [n, len(SCORES)] and the maxima of what fired in them."""
        _, feature, maximum = maxima
        self.requests += len(scores)
        self._scores.append(scores)
        np.add.at(self._fired, feature, 1)
        if self._cap is not None:
            magnitude = np.minimum(maximum / self._cap[feature], 1)
            np.add.at(self._mag_sum, feature, magnitude.astype(np.float64))

    def fired(self) -> NDArray[np.int32]:
        """The features that did, ascending."""
        return np.flatnonzero(self._fired).astype(np.int32)

    def arrays(self, ids: NDArray[np.int32]) -> Arrays:
        """STRATUM_ARRAYS about the features `ids`."""
        return {
            "feature_ids": ids,
            "requests_fired": self._fired[ids],
            "mag_sum": self._mag_sum[ids],
            "request_scores": np.concatenate([np.zeros((0, len(SCORES)), np.float32), *self._scores]),
        }
