"""Is a baseline one distribution? A permutation test over its own requests, in log order, within each producer.

Of each score the requests above a high quantile of the whole are looked at: how many of them lie after each of
`PARTS` − 1 places, against how many should. The statistic is the largest log likelihood ratio K·kl over scores,
quantiles and places. Under the null a producer's requests are exchangeable, and the statistic of the order in which
they came is the largest among `PERMUTATIONS` random orders as rarely as any other's: exact, whatever the scores have to
do with each other (Fisher: The Design of Experiments, 1935; Hemerik, Goeman: Test 27, 2018). Blocks of successive
requests are permuted, not single ones, so that requests which resemble only their neighbours refuse nothing.

A conformal test martingale would be valid, too, but it knows of each request only its rank among those before it, and
loses what it bets while nothing has changed yet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from stream_interp.drift.esr import Floats

REFUSED = 0.0075  # p at or below: of fewer than 1 % of exchangeable baselines
MARKED = 0.05
PERMUTATIONS = 399
SHARES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # of all requests, above each quantile
PARTS = 8
BLOCK_REQUESTS, BLOCKS = 32, 64  # a producer's blocks have so many requests; fewer where there were not so many blocks
_SEED = 20


class Change(NamedTuple):
    """What speaks against one distribution.

    Attributes:
        p: of the permutation test.
        ratio: of the shares of requests above the quantile, after the place and before it, whichever is larger; where
            they differ most.
    """

    p: float
    ratio: float


def change(scores: NDArray[np.floating], producers: NDArray[np.integer]) -> Change:
    """The largest change among scores in log order.

    Args:
        scores: [n, S], larger is stranger: a score of which both sides matter comes twice. NaN is above nothing.
        producers: [n] whose requests they are.
    """
    above, places = _above(scores), np.unique(np.arange(1, PARTS) * len(scores) // PARTS)
    if not above.any():
        return Change(1.0, 1.0)
    own = [np.flatnonzero(producers == producer) for producer in np.unique(producers)]
    expected = np.zeros((len(places), above.shape[1]))
    for of in own:
        expected += np.outer([np.mean(of >= place) for place in places], above[of].sum(axis=0))
    after, total = _after(above, places), above.sum(axis=0).astype(np.float64)
    evidence = _evidence(after, expected, total)
    largest, rng, larger = evidence.max(), np.random.default_rng(_SEED), 0
    for _ in range(PERMUTATIONS):
        permuted = above[_permuted(own, len(above), rng)]
        larger += int(_evidence(_after(permuted, places), expected, total).max() >= largest)
    at = np.unravel_index(evidence.argmax(), evidence.shape)
    return Change((1 + larger) / (1 + PERMUTATIONS), _ratio(after[at], expected[at], total[at[1]]))


def _ratio(after: float, expected: float, total: float) -> float:
    """How many times more than before the place there are after it, or less; 1 where it could not be otherwise."""
    if not 0 < expected < total:
        return 1.0
    low, high = sorted((after / expected, (total - after) / (total - expected)))
    return float(high / low) if low else np.inf


def _above(scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[n, S·len(SHARES)]: which requests are above each quantile; of tied ones none."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    descending = -np.sort(-known, axis=0)
    return np.concatenate([known > descending[int(len(scores) * share)] for share in SHARES], axis=1)


def _after(above: NDArray[np.bool_], places: NDArray[np.integer]) -> Floats:
    """[places, columns] how many of the requests above lie at a place or after it."""
    parts = np.add.reduceat(above, places, axis=0, dtype=np.int64)
    after: Floats = parts[::-1].cumsum(axis=0)[::-1].astype(np.float64)
    return after


def _evidence(after: Floats, expected: Floats, total: Floats) -> Floats:
    """K·kl(after/K, expected/K); 0 where it could not be otherwise."""
    before = total - after
    with np.errstate(divide="ignore", invalid="ignore"):
        evidence = xlogy(after, after / expected) + xlogy(before, before / (total - expected))
    return np.where(np.isnan(evidence), 0.0, evidence)


def _permuted(own: list[NDArray[np.int64]], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[n] an order in which each producer's whole blocks have changed places; a first part that is no block stays."""
    order = np.arange(n)
    for of in own:
        size = max(1, min(BLOCK_REQUESTS, len(of) // BLOCKS))
        blocks = of[len(of) % size :].reshape(-1, size)
        order[blocks.ravel()] = rng.permutation(blocks).ravel()
    return order
