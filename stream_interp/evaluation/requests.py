"""Encoded requests to draw from: which features fired in each, and its scores. Encoded once, resampled often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.records.window import SCORES, Window, scores_of

_BLOCK = 256  # requests whose extra firings are drawn at once


@dataclass(frozen=True)
class Requests:
    """Counted requests in an order.

    Attributes:
        bounds: [n + 1] where each request's features begin in `feature`.
        feature: [m] features that fired in the request's unit.
        magnitude: [m] their largest activations as shares of cap_f, at most 1.
        scores: [n, len(SCORES)] float32.
    """

    bounds: NDArray[np.int64]
    feature: NDArray[np.int64]
    magnitude: NDArray[np.float64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        """How many."""
        return len(self.scores)

    def rate(self, features: NDArray[np.int64]) -> NDArray[np.float64]:
        """[k] share of the requests in which each of the features fired."""
        counts = np.bincount(self.feature, minlength=int(features.max(initial=0)) + 1)
        return np.asarray(counts[features] / len(self), np.float64)

    def take(self, index: NDArray[np.int64]) -> Requests:
        """The requests of these numbers, in this order, as often as they are named."""
        sizes = np.diff(self.bounds)[index]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(bounds[-1]) + np.repeat(self.bounds[index] - bounds[:-1], sizes)
        return Requests(bounds, self.feature[rows], self.magnitude[rows], self.scores[index])

    def resample(self, n: int, rng: np.random.Generator) -> Requests:
        """n requests drawn independently, with replacement."""
        return self.take(rng.integers(0, len(self), n))

    def __add__(self, other: Requests) -> Requests:
        """These, then those."""
        return Requests(
            np.concatenate([self.bounds, self.bounds[-1] + other.bounds[1:]]),
            np.concatenate([self.feature, other.feature]),
            np.concatenate([self.magnitude, other.magnitude]),
            np.concatenate([self.scores, other.scores]),
        )


def requests_from(windows: Iterable[Window]) -> Requests:
    """From windows of one request each; a feature that fired only after the request's unit did not fire."""
    fired, magnitude, scores = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros((0, len(SCORES)), np.float32)]
    for window in windows:
        in_unit = window.arrays["requests_fired"] > 0
        fired.append(window.arrays["feature_ids"][in_unit].astype(np.int64))
        magnitude.append(window.arrays["mag_sum"][in_unit].astype(np.float64))
        scores.append(scores_of(window))
    bounds = np.cumsum([len(features) for features in fired])  # the first is empty: so the bounds begin with 0
    return Requests(bounds, np.concatenate(fired), np.concatenate(magnitude), np.concatenate(scores))


def mixed(null: Requests, drift: Requests, share: float, n: int, rng: np.random.Generator) -> Requests:
    """n requests, each with probability `share` drawn from `drift`, else from `null`."""
    index = np.where(rng.random(n) < share, len(null) + rng.integers(0, len(drift), n), rng.integers(0, len(null), n))
    return (null + drift).take(index)


def multiplied(
    requests: Requests, features: NDArray[np.int64], rate: NDArray[np.float64], ratio: float, rng: np.random.Generator
) -> Requests:
    """The rates of some features times `ratio`: firings are left out at random, or drawn where there were none.

    Scores stay as they are: only the feature tests can see this. A drawn firing is as strong as the others of its
    feature are in the mean.

    Args:
        requests: n of them.
        features: [k] those to change.
        rate: [k] their rates without the change.
        ratio: > 0; no rate grows beyond 1.
        rng: draws which firings.
    """
    request = np.repeat(np.arange(len(requests)), np.diff(requests.bounds))
    keep = ~np.isin(requests.feature, features) | (rng.random(len(request)) < ratio)
    # The share of the silent requests that brings the rate to min(ratio · rate, 1); 0 where ratio ≤ 1.
    extra = np.clip(rate * (ratio - 1) / np.maximum(1 - rate, 1e-12), 0, 1)
    width = int(max(requests.feature.max(initial=0), features.max(initial=0))) + 1
    keys, strength = [request[keep] * width + requests.feature[keep]], [requests.magnitude[keep]]
    total = np.bincount(requests.feature, requests.magnitude, width)
    mean = total / np.maximum(np.bincount(requests.feature, minlength=width), 1)
    for start in range(0, len(requests), _BLOCK):
        row, column = np.nonzero(rng.random((min(_BLOCK, len(requests) - start), len(features))) < extra)
        keys.append((start + row) * width + features[column])
        strength.append(mean[features[column]])
    all_keys, first = np.unique(np.concatenate(keys), return_index=True)  # once, where it fired anyway
    request, feature = np.divmod(all_keys, width)
    bounds = np.searchsorted(request, np.arange(len(requests) + 1))
    return Requests(bounds, feature, np.concatenate(strength)[first], requests.scores)
