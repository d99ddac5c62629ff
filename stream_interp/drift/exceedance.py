"""Request-level tests: does a score exceed frozen order statistics of the baseline too often? (design §4)

Per one-sided score, thresholds at the (k+1)-th largest calibration score, k ∈ {0, 3, 12, 60, 180}; each is a Bernoulli
stream whose null rate is bounded by `intervals.exceedance_bound`. The statistic is the mean over thresholds and odds
ratios of the e-SR, one step a request. Deterministic, bounded, never enlarged by live data.

A few foreign requests in a hundred show at the highest thresholds alone, and there an uncertain null rate costs most:
of n calibration requests the first bound is about log(1/α)/n, ten times what it bounds. So the first threshold has half
of a test's δ and half of the mean, each next one half of what is left (`TOP_HEAVY`).

Conformal p-values against a frozen calibration set are not valid here: 3 to 130 times the nominal alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import esr
from stream_interp.drift.esr import Floats
from stream_interp.drift.intervals import exceedance_bound

RANKS = (0, 3, 12, 60, 180)
TOP_HEAVY = (8, 4, 2, 1, 1)  # weights of the ranks, in the mean and in what each has of a test's δ
EVEN = (1, 1, 1, 1, 1)  # of baselines frozen before
LOG_ODDS = esr.log_odds("up")
MAX_NULL_RATE = 0.5  # an order statistic that a null request exceeds more often says nothing
TIE = 1e-4  # relative: float32 sums of the same request differ a little between batch sizes and devices


@dataclass(frozen=True)
class Exceedance:
    """K one-sided score tests, K small.

    Attributes:
        column: [K] column of each test's score in `request_scores`.
        sign: [K] +1 for up-tests, −1 for down-tests.
        thresholds: [K, len(RANKS)] on sign·score, moved outwards by `TIE`; not finite where the calibration set is too
            small for the rank.
        null_rates: [K, len(RANKS)].
        weights: of the ranks.
    """

    column: NDArray[np.int64]
    sign: Floats
    thresholds: Floats
    null_rates: Floats
    weights: tuple[int, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[K, len(RANKS)]: which thresholds take part in the mean."""
        return np.isfinite(self.thresholds)

    @cached_property
    def log_norm(self) -> Floats:
        """[C, K·len(RANKS)], of the null rates; asked for at every window."""
        return esr.log_normaliser(self.null_rates.ravel(), "up")

    @cached_property
    def factors(self) -> tuple[Floats, Floats]:
        """L of a request that does not exceed the threshold, and of one that does; [C, K·len(RANKS)] each."""
        return np.exp(-self.log_norm), np.exp(LOG_ODDS[:, None] - self.log_norm)

    @property
    def armed(self) -> NDArray[np.bool_]:
        """[K]: tests with at least one usable threshold."""
        return np.any(self.usable, axis=1)  # type: ignore[no-any-return]


def build(
    scores: NDArray[np.float32],
    tests: list[tuple[int, int]],
    alpha: float,
    weights: tuple[int, ...] = TOP_HEAVY,
    deff: float = 1.0,
) -> Exceedance:
    """Tests from calibration scores [n, S]; `tests` lists (column, sign); alpha for the bounds of all of them together.

    `deff` of the n requests count as one.
    NaN (a score that is not available) is left out, infinite scores are not: live ones would exceed, too.
    """
    thresholds = np.full((len(tests), len(RANKS)), np.inf)
    rates = np.ones((len(tests), len(RANKS)))
    for i, (column, sign) in enumerate(tests):
        known = scores[:, column][~np.isnan(scores[:, column])].astype(np.float64)
        descending = np.sort(known * sign)[::-1]
        for j, (k, weight) in enumerate(zip(RANKS, weights, strict=True)):
            share = alpha * weight / (len(tests) * sum(weights))
            bound = exceedance_bound(k / deff, len(descending) / deff, share)
            if bound < MAX_NULL_RATE:
                threshold = float(descending[k])
                thresholds[i, j], rates[i, j] = threshold + TIE * abs(threshold), bound
    columns, signs = (np.array(c) for c in zip(*tests, strict=True))
    return Exceedance(columns.astype(np.int64), signs.astype(np.float64), thresholds, rates, weights)


def initial(tests: Exceedance) -> Floats:
    """State [C, K·len(RANKS)] of tests that have seen nothing."""
    return np.zeros((len(esr.ODDS_RATIOS), tests.thresholds.size))


def exceeds(tests: Exceedance, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[n, K, len(RANKS)]: which thresholds the requests' scores [n, S] exceed; NaN exceeds nothing."""
    signed = scores[:, tests.column].astype(np.float64) * tests.sign
    return signed[:, :, None] > tests.thresholds


def path(tests: Exceedance, m: Floats, over: NDArray[np.bool_], w: float) -> Floats:
    """The state after each of n requests, [n, C, K·len(RANKS)].

    A request is a tick of `esr.update` with n = 1; x is 0 or 1, so L is one of two constants. A test runs both.

    Args:
        tests: the thresholds and their null rates.
        m: [C, K·len(RANKS)] before the first request; left as it was.
        over: [n, K, len(RANKS)] from `exceeds`.
        w: weeks since the request before, of each request.
    """
    silent, fired = tests.factors
    states: Floats = np.where(over.reshape(len(over), 1, -1), fired, silent)  # L, and in its place the state after it
    with np.errstate(over="ignore", invalid="ignore"):  # saturates at the ceiling, but not where m = w = 0
        saturates = (m.max(initial=0.0) + w * len(over)) * fired.max(initial=1.0) ** len(over) > esr.CEILING
        for state in states:
            state *= m + w
            m = np.minimum(state, esr.CEILING, out=state) if saturates else state
    return states


def cells(tests: Exceedance, m: Floats) -> Floats:
    """Of states [..., C, K·len(RANKS)] the statistic [..., K, len(RANKS)] of each threshold; 0 where not usable."""
    per_threshold: Floats = esr.value(m).reshape(*m.shape[:-2], *tests.thresholds.shape) * tests.usable
    return per_threshold


def value(tests: Exceedance, m: Floats) -> Floats:
    """The statistic [..., K] of each test: the weighted mean over odds ratios and usable thresholds; 0 if unarmed."""
    return mean_of(tests, cells(tests, m))


def mean_of(tests: Exceedance, per_threshold: Floats) -> Floats:
    """The same of what `cells` gave."""
    weights = np.array(tests.weights)
    mean: Floats = (per_threshold * weights).sum(axis=-1) / np.maximum((tests.usable * weights).sum(axis=-1), 1)
    return mean
