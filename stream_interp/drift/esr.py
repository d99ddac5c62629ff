"""The time-weighted mixture e-SR over many streams at once (design §4, "Every test is an e-SR in time").

For x ∈ [0, 1] with E[x | past] ≤ p, and λ > 0:  log L = λ·Σx − n·log(1 − p + p·e^λ)  has E[L | past] ≤ 1, by convexity
of e^{λx}; for E[x | past] ≥ p the same holds with λ < 0. e^λ is an odds ratio, which for rare events is the rate
ratio. Per component M ← (M + w)·L, where w is the time that passed, in weeks; M − Σw is a supermartingale between
resets, so a test that alarms at mean(M) ≥ A has E[false alarms] ≤ weeks / A, whatever the dependence between tests
and whatever the traffic. Shin, Ramdas, Rinaldo: E-detectors (arXiv 2203.03532).

Linear domain in float64, saturated at 1e250: float32 or a log domain would lose the small decrements of rare streams.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Direction = Literal["up", "down"]

ODDS_RATIOS: Floats = np.geomspace(1.5, 64.0, 8)  # the mixture, equal weights
CEILING = 1e250
_LOG_CEILING = float(np.log(CEILING))


def log_odds(direction: Direction, ratios: Floats = ODDS_RATIOS) -> Floats:
    """λ of each component, [C]: positive for an up-test, negative for a down-test."""
    return np.log(ratios) * (1.0 if direction == "up" else -1.0)


def log_normaliser(p: NDArray[np.floating[Any]], direction: Direction, ratios: Floats = ODDS_RATIOS) -> Floats:
    """log(1 − p + p·e^λ), [C, K], for the null rates p [K]."""
    growth: Floats = np.multiply.outer(np.expm1(log_odds(direction, ratios)), p)
    log_norm: Floats = np.log1p(growth)
    return log_norm


def update(
    m: Floats,
    w: float,
    n: float | Floats,
    p: NDArray[np.floating[Any]],
    direction: Direction,
    fired: NDArray[np.integer],
    x: Floats,
    ratios: Floats = ODDS_RATIOS,
) -> Floats:
    """One tick of K tests with C components.

    Args:
        m: [C, K] before the tick.
        w: weeks since the tick before; for e-processes the weight that starts now.
        n: units (requests) in the tick; [K] only where `fired` lists all streams in order.
        p: [K] null rates.
        direction: of the tests.
        fired: [f] indices of the streams with Σx > 0, without repeats.
        x: [f] Σx of those streams, 0 < x ≤ n.
        ratios: [C] odds ratios of the mixture.

    Returns:
        [C, K] after the tick; `m` is left as it was.
    """
    log_norm, lam = log_normaliser(p, direction, ratios), log_odds(direction, ratios)
    together = np.multiply.outer(lam, x) - n * log_norm[:, fired]  # in one exponent: that of silence may underflow
    new = log_norm * -n  # from here on in place: fresh arrays of this size cost more than the arithmetic
    np.minimum(new, _LOG_CEILING, out=new)  # finite, so that 0 · e^new is 0 and not NaN
    with np.errstate(over="ignore"):  # saturates below
        np.exp(new, out=new)
        new *= m + w
        new[:, fired] = (m[:, fired] + w) * np.exp(np.minimum(together, _LOG_CEILING))
    return np.minimum(new, CEILING, out=new)


def bernoulli_factors(log_norm: Floats, lam: Floats) -> tuple[Floats, Floats]:
    """L, [C, K] each, of one unit with x = 0 and of one with x = 1: the constants of `update` with n = 1."""
    silent, fired = -log_norm, lam[:, None] - log_norm
    return np.exp(np.minimum(silent, _LOG_CEILING)), np.exp(np.minimum(fired, _LOG_CEILING))


def value(m: Floats) -> Floats:
    """The statistic [..., K] of each test: the mean over its components; m is [..., C, K]."""
    mean: Floats = m.mean(axis=-2)
    return mean
