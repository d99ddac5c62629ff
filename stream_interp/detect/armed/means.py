"""Weak shifts of many features at once: arithmetic means of the rate tests' statistics.

Under the null each M has E[M_τ] ≤ E[time], hence so has the mean of any of them, whatever their dependence: it is an
e-detector again. A small drift of many features that move together shows in it before it shows in any of them; of
independent ones the largest M makes up most of the sum, and their own tests are as fast. Clusters are features of about
the same baseline rate, one decade each: DETECT knows nothing else of them that was frozen before the test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift.esr import Direction, Floats

MIN_MEMBERS = 20  # of a cluster; fewer are told by their own tests
DECADES = 4  # from 0.1, 0.01, 0.001, and all rarer ones
HALF = 0.5  # of a mean's sum: the features that make it up are those that an incident names
MAX_NAMED = 20


@dataclass(frozen=True)
class MeanTests:
    """The means of one direction: that of all armed features, then of each cluster with enough of them.

    Attributes:
        cluster: [d_sae] int8, 1…DECADES; 0 where the feature is not armed, or its cluster too small.
        clusters: those tested.
        armed: features behind the mean of all; 0: none is tested.
    """

    direction: Direction
    cluster: NDArray[np.int8]
    clusters: tuple[int, ...]
    armed: int

    def __len__(self) -> int:
        """How many one-sided tests."""
        return (self.armed > 0) + len(self.clusters)


def build(direction: Direction, rate: Floats, armed: NDArray[np.bool_]) -> MeanTests:
    """Of features with these baseline rates [d_sae]."""
    with np.errstate(divide="ignore"):
        decade = np.clip(np.ceil(-np.log10(rate)), 1, DECADES)
    cluster = np.where(armed, decade, 0).astype(np.int8)
    sizes = np.bincount(cluster, minlength=DECADES + 1)
    tested = tuple(c for c in range(1, DECADES + 1) if sizes[c] >= MIN_MEMBERS)
    cluster[~np.isin(cluster, tested)] = 0
    total = int(armed.sum())
    return MeanTests(direction, cluster, tested, total if total >= MIN_MEMBERS else 0)


def values(tests: MeanTests, statistics: Floats) -> Floats:
    """[len(tests)] weeks, of the rate tests' statistics [d_sae]."""
    if not tests.armed:
        return np.zeros(0)
    sums = np.bincount(tests.cluster, statistics, DECADES + 1)
    sizes = np.bincount(tests.cluster, minlength=DECADES + 1)
    clusters = list(tests.clusters)
    return np.concatenate([[statistics.sum() / tests.armed], sums[clusters] / sizes[clusters]])


def makers(tests: MeanTests, row: int, statistics: Floats) -> NDArray[np.int64]:
    """The fewest features that make up half of a mean, the strongest first, MAX_NAMED at most."""
    own = statistics if row == 0 else statistics * (tests.cluster == tests.clusters[row - 1])
    order = np.argsort(-own, kind="stable")[:MAX_NAMED]
    enough = np.searchsorted(np.cumsum(own[order]), HALF * own.sum())
    return np.sort(order[: int(enough) + 1])
