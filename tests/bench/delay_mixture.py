"""Run lengths of one mixture e-SR test on a Bernoulli stream, by simulation from firing to firing.

ARL, by a change of measure (Siegmund, Sequential Analysis, 1985). Where the truth is the null's boundary, M is a sum of
likelihood ratios: with P_k the law under which a stream changes, at request k, to the rate of a component drawn at
random, Σ_{k≤t} P_k(T = t) = E₀[M_T; T = t]. Hence Σ_k P₀(T ≥ k)·E_k[1/M_T | T ≥ k] = 1, and as Σ_k P₀(T ≥ k) = ARL,

    ARL = 1 / E_k[1/M_T],  k drawn with weight P₀(T ≥ k).

An alarm, rare under P₀, is a matter of course under P_k; and 1/M_T is 1/A but for what the last step overshot: a few
thousand runs give its mean to a percent. k is put at one place, where the start is forgotten, as nearly all of M at an
alarm was won after k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats

FOREVER = 2.0**40  # requests


@dataclass(frozen=True)
class MixtureTest:
    """One test: null rate `p`, threshold `a` in requests; a request is the unit of time."""

    p: float
    direction: Direction
    a: float

    @property
    def factors(self) -> tuple[Floats, Floats]:
        """L, [C, 1] each, of a request in which the feature is silent and of one in which it fires: ticks of M = 1."""
        ones, p = np.ones((len(esr.ODDS_RATIOS), 2)), np.full(2, self.p)
        after = esr.update(ones, 0.0, 1, p, self.direction, np.array([1]), np.ones(1))
        return after[:, :1], after[:, 1:]

    @property
    def changed_rates(self) -> Floats:
        """[C]: the rate against which each component is the likelihood ratio."""
        odds = np.exp(esr.log_odds(self.direction)) * self.p / (1 - self.p)
        rates: Floats = odds / (1 + odds)
        return rates


class Watched(NamedTuple):
    """Of R streams: requests until the alarm or until watching ended, whether it alarmed, and M then, [C, R]."""

    requests: Floats
    alarmed: NDArray[np.bool_]
    m: Floats


def watch(test: MixtureTest, m: Floats, rate: Floats, rng: np.random.Generator, horizon: float = FOREVER) -> Watched:
    """Streams from m [C, R] on, that fire at `rate` [R], until they alarm or `horizon` (whole) requests have passed.

    An alarm of an up-test comes at a firing: in silence no component rises above 1/(p·(odds ratio − 1)), far below A.
    """
    silent, fired = test.factors
    m, requests = m.copy(), np.zeros(m.shape[1])
    alarmed, live = np.zeros(m.shape[1], np.bool_), np.arange(m.shape[1])
    while live.size:
        left = horizon - requests[live]
        gap = np.minimum(_gaps(rate[live], rng), left)
        now = after_silence(m[:, live], silent, gap)
        early = esr.value(now) >= test.a
        if early.any():
            gap[early] = _first_crossing(test, m[:, live[early]], silent, gap[early])
            now[:, early] = after_silence(m[:, live[early]], silent, gap[early])
        fires = ~early & (gap < left)
        now[:, fires] = np.minimum((now[:, fires] + 1) * fired, esr.CEILING)
        m[:, live], requests[live] = now, requests[live] + gap + fires
        alarmed[live] = esr.value(now) >= test.a
        live = live[~alarmed[live] & (requests[live] < horizon)]
    return Watched(requests, alarmed, m)


def after_silence(m: Floats, silent: Floats, requests: Floats) -> Floats:
    """m [C, R] after so many [R] silent requests of factor `silent` [C, 1]: M·Lⁿ + L·(1 − Lⁿ)/(1 − L)."""
    growth = np.minimum(np.log(silent) * requests, np.log(esr.CEILING))
    after: Floats = m * np.exp(growth) + silent * np.expm1(growth) / (silent - 1)
    return np.minimum(after, esr.CEILING)


def _gaps(rate: Floats, rng: np.random.Generator) -> Floats:
    """[R] silent requests before the next firing."""
    gaps = np.full(len(rate), FOREVER)
    gaps[rate > 0] = rng.geometric(rate[rate > 0]) - 1
    return gaps


def _first_crossing(test: MixtureTest, m: Floats, silent: Floats, enough: Floats) -> Floats:
    """[R] least number of silent requests after which the test alarms, by bisection; `enough` is one that suffices."""
    low, high = np.zeros(len(enough)), enough.copy()
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        crossed = esr.value(after_silence(m, silent, middle)) >= test.a
        low, high = np.where(crossed, low, middle), np.where(crossed, middle, high)
    return high


class Estimate(NamedTuple):
    """Requests, with its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:,.0f} ± {self.error:,.0f}" if self.error >= 0.5 else f"{self.mean:,.1f} ± {self.error:.1g}"


def average(values: Floats) -> Estimate:
    """The mean of independent values."""
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def delay(test: MixtureTest, rate: float, runs: int, rng: np.random.Generator) -> Estimate:
    """Expected requests until the alarm from a fresh start, of a stream at `rate`."""
    return average(watch(test, fresh(test, runs), np.full(runs, rate), rng).requests)


def fresh(test: MixtureTest, runs: int) -> Floats:
    """State [C, runs] before the first request."""
    return np.zeros((len(esr.ODDS_RATIOS), runs))


def run_length(test: MixtureTest, runs: int, rng: np.random.Generator) -> Estimate:
    """ARL by the change of measure at the head of this file, k after 100 firings, or A requests if that is sooner."""
    before = round(min(100 / test.p, test.a))
    calm = watch(test, fresh(test, runs), np.full(runs, test.p), rng, before)
    m = calm.m[:, ~calm.alarmed]
    rate = rng.choice(test.changed_rates, m.shape[1])
    inverse = average(1 / esr.value(watch(test, m, rate, rng).m))
    return Estimate(1 / inverse.mean, inverse.error / inverse.mean**2)
