"""After an alarm of one stream: in which block did its rate change, and by how much?

Blocks are windows in log order, or runs of neighbouring ones; x of n requests fired. p is the boundary of the null that
the alarm was against. What follows is of an up-alarm; a down-alarm is one of 1 − x against 1 − p.

**Change time.** The change lies in block T if P(x = 1 | past) ≤ p in every request of the blocks before T, and from
block T + 1 to the alarm it is one q ≥ p. Block T itself is never looked at: it may be mixed. Every block b is a
hypothesis "T = b", left out where one of two e-values reaches 2/ε, as in Saha, Ramdas: Post-detection inference for
sequential changepoint localization (arXiv 2502.06096). With γ_k = 1/(k(k + 1)):

- *before*: Σ_k γ_k · Π L over the k blocks before b, L the detector's likelihood ratios (`drift.esr`). Each product
  has mean ≤ 1 and Σγ ≤ 1. (A maximum over where the product begins would need a reversed martingale, which a bound on
  P(x = 1 | past) does not give.) The weights depend on the distance alone, so that a range which begins late only
  leaves out terms ≥ 0.
- *after*: Σ_k γ_k · G_k / (the largest likelihood at one q ≥ p), of the blocks from b + 1 to the alarm. G_k is the
  likelihood of "as in the baseline for k − 1 blocks, then another rate": two beta-binomials, the first with what the
  baseline counted as its prior, the second with Beta(½, ½). At the true q it is a martingale from 1, and the largest
  likelihood is no smaller than that at the true q (universal inference): an e-process, whenever the alarm comes.

So P(T is left out, the alarm does not come before T) ≤ ε, whatever the stopping rule. With f ≥ P(alarm before T), which
for an e-SR is weeks / A, and ε = α(1 − f), the division by P(alarm not before T) ≥ 1 − f gives

    P(T is kept | the alarm is not false) ≥ 1 − α.

f above ½ counts as ½: a test that has been armed for longer than A/2 keeps the promise only where it had alarmed by
then with probability below ½. Of a rate that goes on drifting no block may be left: then there is no T.

**Rate now.** The beta-binomial mixture (Robbins, 1970; prior Beta(½, ½)) over the likelihood at q is a martingale from
1 if P(x = 1 | past) = q: the q at which it is below 1/α are a confidence sequence, right at all times together, the
alarm and whatever comes later among them. Begun behind each block that may hold the change, the hull of the intervals
holds q if the set holds T. With the baseline's exact interval it becomes one of the ratio; α is shared in thirds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp, xlog1py, xlogy

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.intervals import clopper_pearson

ALPHA = 0.1  # of the set and of the interval, each by itself
MOST_FALSE = 0.5
_HALVINGS = 60  # of [0, 1]: to the last bit of the smallest rates


Counts = NDArray[np.int64] | Floats  # or sums of values in [0, 1]


class Counted(NamedTuple):
    """x of n requests fired: numbers of the baseline, or arrays [B] of blocks in log order."""

    n: Counts
    x: Counts

    def to(self, end: int) -> Counted:
        """The first blocks."""
        return Counted(self.n[:end], self.x[:end])


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def log_against(blocks: Counted, baseline: Counted, p: float, alarmed: Direction) -> Floats:
    """[B] the larger log e-value against each of the blocks up to the alarm.

    Args:
        blocks: up to the alarm.
        baseline: what the null comes from.
        p: boundary of the null, 0 < p < 1.
        alarmed: direction of the alarm.
    """
    if alarmed == "down":
        blocks, baseline, p = _mirrored(blocks), _mirrored(baseline), 1 - p
    larger: Floats = np.maximum(log_before(blocks, p), log_after(blocks, baseline, p))
    return larger


def change_blocks(against: Floats, false_alarm: float, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """The confidence set of the change: which of B blocks may hold it. It need not be one run, and may be empty.

    Args:
        against: [B] from `log_against`.
        false_alarm: at least the probability that the test alarms before the change; for an e-SR its weeks / A.
        alpha: P(the change is left out | the alarm is not false) ≤ alpha.

    Returns:
        [B] bool.
    """
    kept: NDArray[np.bool_] = against < np.log(2 / (alpha * (1 - min(false_alarm, MOST_FALSE))))
    return kept


def _mirrored(counted: Counted) -> Counted:
    return Counted(counted.n, counted.n - counted.x)


def log_before(blocks: Counted, p: float) -> Floats:
    """[B] log e-value of each block against "≤ p in the blocks before it"; −inf where there are none."""
    lam, log_norm = esr.log_odds("up"), esr.log_normaliser(np.array([p]), "up")
    log_l = np.multiply.outer(lam, blocks.x) - log_norm * blocks.n
    sums = np.cumsum(log_l, axis=1) - log_l  # [C, B] of the blocks before
    b = np.arange(len(blocks.n))
    products = sums[:, :, None] - sums[:, None, :] + _log_gamma(b[:, None] - b)
    return _logsumexp(products, (0, 2)) - float(np.log(len(lam)))


def log_after(blocks: Counted, baseline: Counted, p: float) -> Floats:
    """[B] log e-value of each block against "one rate ≥ p in the blocks after it"; −inf where there are none."""
    n, x = (np.concatenate([[0], np.cumsum(of)]) for of in blocks)
    b, n_after, x_after = np.arange(len(blocks.n)), n[-1] - n[1:], x[-1] - x[1:]
    n_late, x_late = n[-1] - n[:-1], x[-1] - x[:-1]  # from block j on; the blocks between b and j come first
    n_first, x_first = (np.maximum(of[:-1] - of[1:, None], 0) for of in (n, x))
    log_g = _log_mixture(n_first, x_first, float(baseline.x) + 0.5, float(baseline.n - baseline.x) + 0.5)
    log_g = log_g + _log_mixture(n_late, x_late, 0.5, 0.5) + _log_gamma(b - b[:, None])
    q = np.maximum(x_after / np.maximum(n_after, 1), p)
    return _logsumexp(log_g, 1) - _log_likelihood(n_after, x_after, q)


def _log_gamma(k: NDArray[np.int64]) -> Floats:
    """Log of the weights; −inf for k < 1."""
    far = np.maximum(k, 1)
    return np.where(k > 0, -np.log(far * (far + 1.0)), -np.inf)


def _logsumexp(logs: Floats, axis: int | tuple[int, ...]) -> Floats:
    with np.errstate(divide="ignore"):  # where there is no block
        total: Floats = logsumexp(logs, axis=axis)
    return total


def _log_likelihood(n: Counts, x: Counts, q: Floats) -> Floats:
    log_l: Floats = xlogy(x, q) + xlog1py(n - x, -q)
    return log_l


def _log_mixture(n: Counts, x: Counts, a: float, b: float) -> Floats:
    """Log of the likelihood's mean over Beta(a, b)."""
    log_g: Floats = betaln(x + a, n - x + b) - betaln(a, b)
    return log_g


def rate_interval(counted: Counted, alpha: float) -> tuple[Floats, Floats]:
    """The confidence sequence of a rate, [B] and [B]; n = 0 gives [0, 1].

    It is one of the mean of values in [0, 1], too, whose Σ is `x`: the likelihood ratio is convex in each.
    """
    n, x = counted
    floor = _log_mixture(n, x, 0.5, 0.5) + np.log(alpha)
    best = np.where(n > 0, x / np.maximum(n, 1), 0.5)

    def kept(q: Floats) -> NDArray[np.bool_]:
        above: NDArray[np.bool_] = _log_likelihood(n, x, q) > floor
        return above

    return _edge(kept, best, 0.0), _edge(kept, best, 1.0)


def _edge(kept: Callable[[Floats], NDArray[np.bool_]], inside: Floats, outside: float) -> Floats:
    """Bisects for where `kept` ends between a point inside and an end of [0, 1]; errs outwards."""
    far = np.full(inside.shape, outside)
    near = np.where(kept(far), far, inside)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        within = kept(middle)
        near, far = np.where(within, middle, near), np.where(within, far, middle)
    return far


def ratio_interval(blocks: Counted, kept: NDArray[np.bool_], baseline: Counted, alpha: float = ALPHA) -> Interval:
    """Of the rate after the change over the baseline's; coverage ≥ 1 − alpha, given that the alarm is not false.

    Args:
        blocks: to any time from the alarm on.
        kept: [≤ B] the set of the change at alpha / 3: `change_blocks` of the blocks up to the alarm.
        baseline: what it counted.
        alpha: P(the ratio is outside) ≤ alpha.

    Returns:
        high is inf where the baseline's rate may be 0; (0, inf) where nothing is kept.
    """
    behind = np.flatnonzero(kept) + 1
    if not len(behind):
        return Interval(0.0, np.inf)
    n, x = (np.concatenate([[0], np.cumsum(of)]) for of in blocks)
    low, high = rate_interval(Counted(n[-1] - n[behind], x[-1] - x[behind]), alpha / 3)
    before_low, before_high = clopper_pearson(np.atleast_1d(baseline.x), int(baseline.n), alpha / 6)
    least = float(low.min() / before_high[0])
    return Interval(least, float(high.max() / before_low[0]) if before_low[0] > 0 else np.inf)
