"""After an alarm of one stream: in which block did the rate leave its interval, and by how much has it changed?

Blocks are windows in log order, or runs of neighbouring ones; x of n requests fired. p is the boundary of the null that
the alarm was against. In what follows the alarm is an up-alarm; a down-alarm is its mirror image.

**Change time.** The change lies in block T if E[x | past] ≤ p in every request of the blocks before T, and ≥ p in every
request from T + 1 to the alarm. Nothing else is assumed: the rate may drift on, and block T itself is never looked at,
so that it may be mixed. Every block b is a hypothesis "T = b", inverted as in Saha, Ramdas: Post-detection inference
for sequential changepoint localization (arXiv 2502.06096):

- Before b: Σ_k γ_k · Π L over the k blocks before b, γ_k = 1/(k(k + 1)), L the detector's likelihood ratios. Each
  product has mean ≤ 1 and Σγ ≤ 1: an e-value. (Over the start of the products a maximum would need a reversed
  martingale, which E[x | past] ≤ p does not give.) The weights depend on the distance alone, so that a range which
  begins late only leaves out terms ≥ 0.
- After b: the largest value up to the alarm of Π L⁻ over the blocks from b + 1, L⁻ the ratios that point back. Under
  E[x | past] ≥ p that is a supermartingale from 1; by Ville's inequality it ever reaches c with probability ≤ 1/c.

b is left out where one of the two reaches 2/ε. So P(T left out, the alarm does not come before T) ≤ ε, whatever the
stopping rule was. With f ≥ P(alarm before T), which for an e-SR is weeks / A, and ε = α(1 − f), the division by
P(alarm not before T) ≥ 1 − f gives P(T is kept | the alarm is not false) ≥ 1 − α. f above ½ counts as ½: a test that
has been armed for longer than A/2 keeps the promise only while it has alarmed falsely in fewer than half of such times.

**Rate now.** For x ∈ {0, 1} with P(x = 1 | past) = q, the beta-binomial mixture (Robbins, 1970; prior Beta(½, ½)) over
the likelihood at q is a martingale from 1: the q at which it is below 1/α are a confidence sequence, right at all times
together, the alarm and whatever comes later among them. Begun behind each block that may hold the change, the hull of
the intervals holds q if the set holds T. With the baseline's exact interval it becomes one of the ratio; α is shared in
thirds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp, xlog1py, xlogy

from stream_interp.drift import esr, recovery
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.intervals import clopper_pearson

ALPHA = 0.1  # of the set and of the interval, each by itself
MOST_FALSE = 0.5
_HALVINGS = 60  # of [0, 1]: to the last bit of the smallest rates


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def change_blocks(
    n: NDArray[np.integer],
    x: NDArray[np.integer],
    p: float,
    alarmed: Direction,
    false_alarm: float,
    alpha: float = ALPHA,
) -> NDArray[np.bool_]:
    """The confidence set of the change: which of B blocks may hold it. It need not be one run, and may be empty.

    Args:
        n: [B] requests of each block; the alarm came at the end of the last one.
        x: [B] requests among them that fired.
        p: boundary of the null, 0 < p < 1.
        alarmed: direction of the alarm.
        false_alarm: at least the probability that the test alarms before the change; for an e-SR its weeks / A.
        alpha: P(the change is left out | the alarm is not false) ≤ alpha.

    Returns:
        [B] bool.
    """
    level = alpha * (1 - min(false_alarm, MOST_FALSE))
    largest = np.maximum(log_before(n, x, p, alarmed), log_after(n, x, p, alarmed))
    return largest < np.log(2 / level)  # type: ignore[no-any-return]


def log_before(n: NDArray[np.integer], x: NDArray[np.integer], p: float, alarmed: Direction) -> Floats:
    """[B] log e-value of each block against "the blocks before it are under the null"; −inf where there are none."""
    sums = _log_products(n, x, p, alarmed, esr.ODDS_RATIOS)[:, :-1]
    b = np.arange(len(n))
    k = b[:, None] - b  # [B, B]: how many blocks before the block of the row the product of the column begins
    log_weights = np.where(k > 0, -np.log(np.maximum(k, 1) * (np.maximum(k, 1) + 1.0)), -np.inf)
    products = sums[:, :, None] - sums[:, None, :] + log_weights
    with np.errstate(divide="ignore"):  # of the first block
        log_e: Floats = logsumexp(products, axis=(0, 2)) - np.log(len(sums))
    return log_e


def log_after(n: NDArray[np.integer], x: NDArray[np.integer], p: float, alarmed: Direction) -> Floats:
    """[B] log of the largest e-process of each block against "the rate is beyond p in the blocks after it"; ≥ 0."""
    back: Direction = "down" if alarmed == "up" else "up"
    sums = _log_products(n, x, p, back, recovery.ODDS_RATIOS)[:, 1:]
    process = logsumexp(sums[:, None, :] - sums[:, :, None], axis=0) - np.log(len(sums))
    later = np.tri(len(n), dtype=bool).T  # [B, B]: the block itself, at which its process begins with 1, and later ones
    log_e: Floats = np.where(later, process, -np.inf).max(axis=1, initial=0.0)
    return log_e


def _log_products(
    n: NDArray[np.integer], x: NDArray[np.integer], p: float, direction: Direction, ratios: Floats
) -> Floats:
    """[C, B + 1] log of Π L of each component over the first blocks: none, one, … all."""
    log_norm, lam = esr.log_normaliser(np.array([p]), direction, ratios), esr.log_odds(direction, ratios)
    log_l = np.multiply.outer(lam, x.astype(np.float64)) - log_norm * n
    return np.concatenate([np.zeros((len(ratios), 1)), np.cumsum(log_l, axis=1)], axis=1)


def rate_interval(n: NDArray[np.integer], x: NDArray[np.integer], alpha: float) -> tuple[Floats, Floats]:
    """The confidence sequence of a rate where x of n requests fired, any shape; n = 0 gives [0, 1]."""
    floor = betaln(x + 0.5, n - x + 0.5) - betaln(0.5, 0.5) + np.log(alpha)
    with np.errstate(invalid="ignore"):
        best = np.where(n > 0, x / np.maximum(n, 1), 0.5)

    def kept(q: Floats) -> NDArray[np.bool_]:
        return xlogy(x, q) + xlog1py(n - x, -q) > floor  # type: ignore[no-any-return]

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


def ratio_interval(
    n: NDArray[np.integer],
    x: NDArray[np.integer],
    kept: NDArray[np.bool_],
    baseline_n: int,
    baseline_x: int,
    alpha: float = ALPHA,
) -> Interval:
    """Of the rate after the change over the baseline's; coverage ≥ 1 − alpha, given that the alarm is not false.

    Args:
        n, x: [B] requests of each block and those that fired, to any later time.
        kept: [≤ B] the set of the change at alpha / 3: of `change_blocks` on the blocks up to the alarm.
        baseline_n, baseline_x: requests of the baseline, and those that fired.
        alpha: P(the ratio is outside) ≤ alpha.

    Returns:
        high is inf where the baseline's rate may be 0; (0, inf) where nothing is kept.
    """
    behind = np.flatnonzero(kept) + 1
    if not len(behind):
        return Interval(0.0, np.inf)
    total_n, total_x = (np.concatenate([[0], np.cumsum(of)]) for of in (n, x))
    low, high = rate_interval(total_n[-1] - total_n[behind], total_x[-1] - total_x[behind], alpha / 3)
    before_low, before_high = clopper_pearson(np.array([baseline_x]), baseline_n, alpha / 6)
    least = float(low.min() / before_high[0])
    return Interval(least, float(high.max() / before_low[0]) if before_low[0] > 0 else np.inf)
