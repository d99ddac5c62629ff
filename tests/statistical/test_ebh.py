"""e-d-BH: equal to its definition; of what it names, the false share grows no faster than α a tick (design §4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.drift import esr
from stream_interp.drift.ebh import e_d_bh
from stream_interp.drift.esr import Floats

TICKS, REQUESTS, FACTORS = 50, 2_000, 16  # a tick is a window of so many requests, and the unit of time
ALPHA = 0.5 / TICKS
LOOK_AT = (5, 10, 20, 30, 50)  # α·τ from 0.05 to 0.5
ACTIVE, BOOST = 0.1, 5.0  # a factor is active in a tenth of the requests, and multiplies its features' rates


def brute_force(values: list[float], alpha: float) -> list[int]:
    """Of all k the largest for which k streams have k·M/K ≥ 1/α each."""
    streams = len(values)
    for k in range(streams, 0, -1):
        named = [i for i, value in enumerate(values) if k * value >= streams / alpha]
        if len(named) >= k:
            return named
    return []


statistics = st.floats(0, esr.CEILING) | st.sampled_from([0.0, 1.0, 2.0, 10.0, 20.0, 40.0, esr.CEILING])


@given(st.lists(statistics, max_size=40), st.floats(1e-6, 10))
def test_equals_brute_force(values: list[float], alpha: float) -> None:
    assert e_d_bh(np.array(values), alpha).tolist() == brute_force(values, alpha)


def test_equals_brute_force_where_much_is_named() -> None:
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(300):
        values = np.exp(rng.normal(0, 3, 60))
        named = e_d_bh(values, 0.5)
        assert named.tolist() == brute_force(values.tolist(), 0.5)
        assert {i for i, v in enumerate(values) if v >= 60 / 0.5} <= set(named)  # those of e-d-Bonferroni
        sizes.add(len(named))
    assert len(sizes) > 10


def test_values_at_the_ceiling_and_none() -> None:
    assert e_d_bh(np.array([esr.CEILING, 0.0, esr.CEILING]), 1e-3).tolist() == [0, 2]
    assert e_d_bh(np.zeros(0), 0.1).tolist() == []


class World:
    """Features whose rate in a request depends on a factor that a group of them shares; 1 % changed from the start.

    Requests are independent, features inside one are not: E[x | past] = p all the same where nothing changed.
    """

    def __init__(self, rng: np.random.Generator, streams: int) -> None:
        self.rng, self.streams = rng, streams
        self.p = 10 ** rng.uniform(-5, -1, streams)
        self.changed = np.zeros(streams, np.bool_)
        self.changed[rng.choice(streams, streams // 100, replace=False)] = True
        ratio = np.where(self.changed, np.exp(rng.uniform(np.log(1.5), np.log(10), streams)), 1.0)
        rate = np.minimum(self.p * ratio, 0.95)
        self.when_active = np.minimum(rate * BOOST, np.maximum(rate, 0.95))
        self.otherwise = (rate - ACTIVE * self.when_active) / (1 - ACTIVE)

    def window(self) -> Floats:
        """Of each feature, in how many requests it fired."""
        active = self.rng.binomial(REQUESTS, ACTIVE, FACTORS)[np.arange(self.streams) % FACTORS]
        fired = self.rng.binomial(active, self.when_active) + self.rng.binomial(REQUESTS - active, self.otherwise)
        return fired.astype(np.float64)


def false_shares(seed: int, streams: int, alphas: tuple[float, ...]) -> tuple[Floats, float]:
    """Of one run, FDP of all that was named so far, [alphas, LOOK_AT], and the share of changed streams found at α₀."""
    world = World(np.random.default_rng((1, seed)), streams)
    m = np.zeros((len(esr.ODDS_RATIOS), streams))
    latched, shares = np.zeros((len(alphas), streams), np.bool_), []
    for tick in range(1, TICKS + 1):
        fired = world.window()
        some = np.flatnonzero(fired)
        m = esr.update(m, 1.0, REQUESTS, world.p, "up", some, fired[some])
        for named, alpha in zip(latched, alphas, strict=True):
            named[e_d_bh(esr.value(m), alpha)] = True
        if tick in LOOK_AT:
            shares.append((latched & ~world.changed).sum(axis=1) / np.maximum(latched.sum(axis=1), 1))
    return np.array(shares).T, float(latched[0, world.changed].mean())


def bounds(shares: Floats) -> tuple[Floats, Floats]:
    """One-sided 99 % bounds of mean FDP, from below and from above; shares [runs, ...]."""
    mean, error = shares.mean(axis=0), shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
    return mean - 2.33 * error, mean + 2.33 * error


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("streams", "runs"), [(4_096, 60), pytest.param(65_536, 200, marks=[pytest.mark.full, pytest.mark.timeout(7_200)])]
)
def test_mean_fdp_is_at_most_alpha_tau(streams: int, runs: int) -> None:
    """And the negative control, a threshold a hundred times too low, fails the same check at every tick."""
    of_runs = [false_shares(seed, streams, (ALPHA, 100 * ALPHA)) for seed in range(runs)]
    lower, upper = bounds(np.array([shares for shares, _ in of_runs]))
    allowed = ALPHA * np.array(LOOK_AT)
    print(f"K {streams}, {runs} runs: upper bounds {upper[0]} of {allowed}; control {lower[1]}")
    assert (upper[0] <= allowed).all()
    assert (lower[1] > allowed).all()
    assert np.mean([found for _, found in of_runs]) > 0.3  # one that names nothing has no false share either
