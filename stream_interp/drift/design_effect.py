"""Are a baseline's units independent? The design effect: variance of cluster sums over their binomial variance.

A rate counted in n dependent units is as uncertain as one of n / deff independent ones (Kish: Survey Sampling, 1965),
and where units depend on those before them the tests' E[x | past] ≤ p is false. One accumulator for every level, by
what it absorbs: of windows (`requests_fired`, requests), for tokens (`tokens_fired`, tokens); `of_buckets` makes it of
the groups that producers name (their requests that fired, their requests).

*Estimator.* e = x − n·p̂ of a cluster of n units, p̂ from the N units before it. For independent units
E[e² / (1 + n/N)] = n·p(1 − p) exactly (recursive residuals; Brown, Durbin, Evans: JRSS B 37, 1975), so that no cluster
need be kept. deff = Σ e²/(1 + n/N) / Σ n·p̂(1 − p̂) over clusters and features: the cluster-robust variance of a rate
over its binomial one. Summed before divided, since a rare feature's own ratio is noise.

*Robust.* Features are dealt out to `GROUPS` groups, and deff is the median of the groups' ratios: a few odd features
do not move it (median of means; Lugosi, Mendelson: arXiv 1906.04280). The lower bound is that of the ratio over all
features by the spread between clusters, so features may depend on each other at will: identical ones are one. It is as
unsure as t of (Σn)²/Σn² clusters of one size. So one cluster alone that hangs together, however large, is not called
dependent: nothing tells whether another one like it would do so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from stream_interp.drift.esr import Floats

DEPENDENT = 1.2
CONFIDENCE = 0.99  # of the bound; of baselines of independent units less than 1 % are called dependent
GROUPS = 16
CLUSTER_REQUESTS = 32  # at least: what lasts longer than a cluster is seen only in part


@dataclass(frozen=True)
class DesignEffect:
    """What the clusters said so far.

    Attributes:
        at_least: units of a cluster; smaller ones are joined with those that follow.
        n, fired: units, and [d_sae] of them fired, of all closed clusters.
        open_n, open_fired: the same of the one that is not large enough yet.
        clusters: closed ones that have residuals: all but the first.
        units, units_sq: Σn and Σn² over those.
        residuals: [GROUPS] Σq by group of features; q = Σ e²/(1 + n/N) over features, of one cluster.
        residuals_sq, residuals_units: Σq² and Σnq over clusters, q of all features.
    """

    at_least: int
    fired: Floats
    open_fired: Floats
    residuals: Floats
    n: int = 0
    open_n: int = 0
    clusters: int = 0
    units: int = 0
    units_sq: int = 0
    residuals_sq: float = 0.0
    residuals_units: float = 0.0


class Estimate(NamedTuple):
    """A design effect, NaN where there is too little to say one, and its lower bound of `CONFIDENCE`."""

    deff: float
    lower: float
    clusters: int

    @property
    def dependent(self) -> bool:
        """Whether the units are not independent, beyond what chance and the tests' margins explain."""
        return self.deff > DEPENDENT and self.lower > 1


def initial(d_sae: int, at_least: int = 1) -> DesignEffect:
    """Nothing seen. `at_least`: units of a cluster; `CLUSTER_REQUESTS` for windows of requests."""
    return DesignEffect(at_least, np.zeros(d_sae), np.zeros(d_sae), np.zeros(GROUPS))


def absorb(state: DesignEffect, fired: NDArray[np.integer], n: int) -> DesignEffect:
    """One more window: of its n units [d_sae] `fired`, 0 ≤ fired ≤ n. In log order."""
    x, n = state.open_fired + fired, state.open_n + n
    if n < max(state.at_least, 1):
        return replace(state, open_fired=x, open_n=n)
    closed = replace(state, fired=state.fired + x, n=state.n + n, open_fired=np.zeros_like(x), open_n=0)
    if not state.n:
        return closed
    q = np.square(x - state.fired * (n / state.n)) / (1 + n / state.n)
    total = float(q.sum())
    return replace(
        closed,
        clusters=state.clusters + 1,
        units=state.units + n,
        units_sq=state.units_sq + n * n,
        residuals=state.residuals + _by_group(q),
        residuals_sq=state.residuals_sq + total * total,
        residuals_units=state.residuals_units + total * n,
    )


def estimate(state: DesignEffect) -> Estimate:
    """The design effect of the closed clusters."""
    p = state.fired / max(state.n, 1)
    binomial = _by_group(p * (1 - p)) * state.n / max(state.n - 1, 1)  # variance of one unit, unbiased
    if state.clusters < 2 or not binomial.any():
        return Estimate(np.nan, np.nan, state.clusters)
    known = binomial > 0
    deff = float(np.median(state.residuals[known] / binomial[known])) / state.units
    per_unit = float(state.residuals.sum()) / state.units
    spread = state.residuals_sq - 2 * per_unit * state.residuals_units + per_unit**2 * state.units_sq
    error = np.sqrt(max(spread, 0.0) * state.clusters / (state.clusters - 1)) / state.units
    alike = state.units**2 / state.units_sq  # so many clusters of one size
    lower = (per_unit - stdtrit(alike - 1, CONFIDENCE) * error) / binomial.sum()
    return Estimate(deff, float(lower), state.clusters)


def of_buckets(n: NDArray[np.integer], fired: NDArray[np.integer]) -> DesignEffect:
    """Of clusters that are all at hand: B buckets, each of n[b] units, of which fired[b] [B, features] fired.

    With all of them known p̂ is that of all N units, and of independent units E[e² / (1 − n/N)] = n·p(1 − p). Clusters
    that are independent of each other may share a bucket: variances of sums add up.
    """
    n, fired = n[n > 0].astype(np.float64), fired[n > 0].astype(np.float64)
    total, state = n.sum(), initial(fired.shape[1])
    if len(n) < 2:
        return state
    x = fired.sum(axis=0)
    q = np.square(fired - np.outer(n, x / total)) / (1 - n / total)[:, None]
    of_bucket = q.sum(axis=1)
    return replace(
        state, fired=x, n=int(total), clusters=len(n), units=int(total), units_sq=int(n @ n),
        residuals=_by_group(q.sum(axis=0)), residuals_sq=float(of_bucket @ of_bucket),
        residuals_units=float(of_bucket @ n),
    )  # fmt: skip


def _by_group(values: Floats) -> Floats:
    """[GROUPS]: sums of `values` [d_sae], neighbours in different groups: related features are often neighbours."""
    sums: Floats = np.bincount(np.arange(len(values)) % GROUPS, weights=values, minlength=GROUPS).astype(np.float64)
    return sums
