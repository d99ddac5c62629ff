"""The time-weighted mixture e-SR over many streams at once (design §4, "Every test is an e-SR in time").

For x ∈ [0, 1] with E[x | past] ≤ p, and λ > 0:  log L = λ·Σx − n·log(1 − p + p·e^λ)  has E[L | past] ≤ 1, by convexity
of e^{λx}; for E[x | past] ≥ p the same holds with λ < 0. e^λ is an odds ratio, which for rare events is the rate
ratio. Per component M ← (M + w)·L, where w is the time that passed, in weeks; M − Σw is a supermartingale between
resets, so a test that alarms at mean(M) ≥ A has E[false alarms] ≤ weeks / A, whatever the dependence between tests
and whatever the traffic. Shin, Ramdas, Rinaldo: E-detectors (arXiv 2203.03532).

Linear domain in float64, saturated at 1e250: float32 or a log domain would lose the small decrements of rare streams.
Silence divides by the n-th power of 1 − p + p·e^λ; a stream that fired is multiplied by the n-th power of its mean
unit's e^{λ·Σx/n} / (1 − p + p·e^λ), which over- or underflows only where L does. Rounding takes or gives at most
n · 1e-15 of L a tick, 1e-8 of M in 1e7 requests.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Direction = Literal["up", "down"]

# The mixture, equal weights: log-spaced, and denser at the bottom, where a component that fits badly costs most.
# No delay in `python -m tests.bench.delay oracle` is over 1.25 of the oracle's; of geomspace(1.5, 64, 8) one is 1.27.
ODDS_RATIOS: Floats = np.array([1.45, 1.75, 2.8, 4.8, 9.0, 17.0, 33.0, 64.0])
CEILING = 1e250
_LOG_CEILING = float(np.log(CEILING))
_BLOCK = 32_768  # values at once, 256 KB: what one operation writes the next finds in a core's cache


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
        n: units (requests) in the tick; or [f], those of the streams in `fired` where all others had none.
        p: [K] null rates; +inf in an up-test and −inf in a down-test make L = 0.
        direction: of the tests.
        fired: [f] indices of the streams with Σx > 0, and of any others, without repeats.
        x: [f] Σx of those streams, 0 ≤ x ≤ n.
        ratios: [C] odds ratios of the mixture.

    Returns:
        [C, K] after the tick; `m` is left as it was.
    """
    rates, lam = p.astype(np.float64, copy=False), log_odds(direction, ratios)
    new, few = np.empty_like(m), _BLOCK // len(m)
    with np.errstate(over="ignore"):  # saturates
        _silence(m, w, 0 if isinstance(n, np.ndarray) else n, rates, lam, new)
        for some in (slice(start, start + few) for start in range(0, len(fired), few)):
            ids, units = fired[some], n[some] if isinstance(n, np.ndarray) else n
            after = m.take(ids, axis=1)
            after += w
            after *= _likelihood(units, rates[ids], lam, x[some])
            new[:, ids] = np.minimum(after, CEILING, out=after)
    return new


def _silence(m: Floats, w: float, n: float, p: Floats, lam: Floats, out: Floats) -> None:
    """The tick of all streams as if none had fired; a component of a block at a time, so that values lie in a row."""
    scratch = np.empty((2, _BLOCK))
    for block in (slice(start, start + _BLOCK) for start in range(0, len(p), _BLOCK)):
        rates, (unit, squares) = p[block], scratch[:, : len(p[block])]
        for before, after, log_ratio, growth in zip(m[:, block], out[:, block], lam, np.expm1(lam), strict=True):
            np.multiply(rates, growth, out=unit)
            unit += 1.0
            norm = _power(unit, n, squares)
            if n * -log_ratio > _LOG_CEILING:
                np.maximum(norm, 1 / CEILING, out=norm)  # not 0: 0 / 0 were NaN where M + w = 0
            np.add(before, w, out=after)
            after /= norm
            if log_ratio < 0 and after.max() > CEILING:  # in silence an up-test never grows by more than w
                np.minimum(after, CEILING, out=after)


def _likelihood(n: float | Floats, p: Floats, lam: Floats, x: Floats) -> Floats:
    """L of some streams, [C, f], at most CEILING."""
    n = np.maximum(n, np.finfo(np.float64).tiny)  # of no unit L is 1, or 0 where p is infinite
    unit: Floats = np.exp(np.multiply.outer(lam, x / n))
    unit /= np.multiply.outer(np.expm1(lam), p) + 1.0
    return np.minimum(_power(unit, n, np.empty_like(unit)), CEILING)


def _power(base: Floats, n: float | Floats, out: Floats) -> Floats:
    """base^n, [..., K], in `out` or in `base` itself; but ∞^0 = ∞. Each squaring takes a tenth of `np.power`."""
    if isinstance(n, np.ndarray) or n % 1:
        return np.power(base, n, out=out)
    if n == 0:
        return np.where(base < np.inf, 1.0, base)
    if int(n).bit_count() == 1:
        out = base  # it is needed no more, and in place a squaring takes two thirds of the time
    power = base
    for bit in f"{int(n):b}"[1:]:
        power = np.multiply(power, power, out=out)
        if bit == "1":
            power *= base
    return power


def value(m: Floats) -> Floats:
    """The statistic [..., K] of each test: the mean over its components; m is [..., C, K]."""
    mean: Floats = m.mean(axis=-2)
    return mean
