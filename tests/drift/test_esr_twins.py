"""The fast e-SR tick against slow twins: the log domain, the closed form of silence, plain Python numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats

C = len(esr.ODDS_RATIOS)
DIRECTIONS = ("up", "down")


def by_logs(m: Floats, w: float, n: float | Floats, p: Floats, direction: Direction, x: Floats) -> Floats:
    """M ← (M + w)·L with L = exp(λ·Σx − n·log1p(p·(e^λ − 1))), of all streams alike; n and x are [K]."""
    lam = esr.log_odds(direction)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        log_l = lam * x - n * np.log1p(p * np.expm1(lam))
        log_l = np.where(np.isfinite(p), log_l, -np.inf)
        likelihood = np.exp(np.minimum(log_l, np.log(esr.CEILING)))  # finite, so that 0 · L is 0
        return np.minimum((m + w) * likelihood, esr.CEILING)


def silent_by_closed_form(m: Floats, w: float, n: float, p: Floats, direction: Direction, ticks: float) -> Floats:
    """After so many ticks of equal n and w in which no stream fires.

    With s = (1 − p + p·e^λ)^−n a tick is M ← (M + w)·s, so that M·s^T + w·(s + … + s^T) is left after T of them. Of
    rare streams s is 1 to within 1e-12 and less: the sum, s·(1 − s^T)/(1 − s), is taken by expm1 of log s.
    """
    log_s = -n * esr.log_normaliser(p, direction)
    with np.errstate(over="ignore"):
        return np.minimum(m * np.exp(ticks * log_s) - w * np.expm1(ticks * log_s) / np.expm1(-log_s), esr.CEILING)


def _tick(m: Floats, w: float, n: float, p: Floats, direction: Direction, x: Floats) -> Floats:
    fired = np.flatnonzero(x)
    return esr.update(m, w, n, p, direction, fired, x[fired])


def _rates(streams: int) -> Floats:
    return np.random.default_rng(0).permutation(np.geomspace(1e-9, 0.95, streams))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("n", [1, 2, 31, 32, 2.5, 1_000, 10_000])
def test_equals_the_log_domain_tick_after_tick(direction: Direction, n: float) -> None:
    """Firing as the null has it, then far more often, then never; from nothing to saturation and back."""
    rng, p = np.random.default_rng(1), _rates(300)
    m = slow = np.zeros((C, len(p)))
    for tick in range(60):
        rate = p if tick < 20 else np.minimum(5 * p, 1) if tick < 40 else np.zeros(len(p))
        w = float(rng.exponential(1e-4)) * (tick % 5 > 0)
        x = rng.binomial(int(n), rate) * rng.choice([1.0, 0.37])  # counts, or a magnitude below each
        m, slow = _tick(m, w, n, p, direction, x), by_logs(slow, w, n, p, direction, x)
        np.testing.assert_allclose(m, slow, rtol=1e-9, atol=1e-50)  # weeks: from 1e250 L may fall below 1e-308


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_blocks_leave_no_stream_out(direction: Direction) -> None:
    """More streams, and more of them firing, than are worked on at once; in the order they are given, which is any."""
    rng = np.random.default_rng(2)
    p, x = _rates(2 * esr._BLOCK + 5), np.zeros(2 * esr._BLOCK + 5)
    fired = rng.permutation(len(p))[: esr._BLOCK]
    x[fired] = rng.integers(1, 33, len(fired))
    m = rng.exponential(1, (C, len(p)))
    expected = by_logs(m, 0.1, 32, p, direction, x)
    np.testing.assert_allclose(esr.update(m, 0.1, 32, p, direction, fired, x[fired]), expected, rtol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_stream_may_have_units_of_its_own_and_others_none(direction: Direction) -> None:
    rng, p = np.random.default_rng(3), _rates(500)
    fired = rng.permutation(500)[:200]
    n, x = np.zeros(500), np.zeros(500)
    n[fired] = rng.integers(0, 40, 200)
    x[fired] = n[fired] * rng.random(200)
    m = rng.exponential(1, (C, 500))
    found = esr.update(m, 0.1, n[fired], p, direction, fired, x[fired])
    np.testing.assert_allclose(found, by_logs(m, 0.1, n, p, direction, x), rtol=1e-12)


@pytest.mark.parametrize(("direction", "nothing"), [("up", np.inf), ("down", -np.inf)])
@pytest.mark.parametrize("n", [0, 1, 2.5, 32, 10_000])
def test_a_stream_without_a_test_stays_at_zero(direction: Direction, nothing: float, n: float) -> None:
    p = np.array([nothing, 0.1, nothing, 1e-4, nothing], np.float32)
    fired = np.array([2, 3]) if n else np.zeros(0, np.int64)
    m = esr.update(np.zeros((C, 5)), 0.1, n, p, direction, fired, np.ones(len(fired)))
    assert (m[:, [0, 2, 4]] == 0).all()
    assert (m[:, 3] > 0).all()
    m = esr.update(m, 0.1, np.array([0.0, 3.0, 3.0]), p, direction, np.array([0, 1, 2]), np.array([0.0, 1.0, 1.0]))
    assert (m[:, [0, 2, 4]] == 0).all()
    assert np.isfinite(m).all()


def test_a_rate_in_float32_is_that_rate_in_float64() -> None:
    rng, p = np.random.default_rng(4), _rates(500).astype(np.float32)
    m, x = rng.exponential(1, (C, 500)), rng.binomial(32, p).astype(float)
    np.testing.assert_array_equal(_tick(m, 0.1, 32, p, "up", x), _tick(m, 0.1, 32, p.astype(np.float64), "up", x))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("n", [1, 32, 10_000])
def test_a_tick_rounds_by_no_more_than_its_units(direction: Direction, n: int) -> None:
    """Rounding of 1 − p + p·e^λ is the same at every tick, so it adds up: n·1e-15 of L, of 1e7 requests 1e-8."""
    p = _rates(2_000)
    lam, x = np.longdouble(esr.log_odds(direction))[:, None], np.where(np.arange(2_000) % 2, np.ceil(n * p), 0)
    log_l = lam * x - n * np.log1p(p * np.expm1(lam))
    inside = np.abs(log_l) < 500  # neither side saturates
    found = _tick(np.ones((C, 2_000)), 0.0, n, p, direction, x)
    assert np.abs(found[inside] / np.exp(log_l[inside]) - 1).max() <= 1e-15 * (n + 1)
    assert inside.mean() > 0.5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("n", [1, 32])
def test_silent_ticks_equal_their_closed_form(direction: Direction, n: int) -> None:
    """Also where a tick's factor is 1 to within 1e-12, and where 2,000 silent ticks saturate."""
    p = np.concatenate([np.geomspace(1e-16, 1e-9, 20), np.geomspace(1e-8, 0.95, 100)])
    before = m = np.random.default_rng(5).exponential(1, (C, len(p)))
    for _ in range(2_000):
        m = _tick(m, 1e-5, n, p, direction, np.zeros(len(p)))
    expected = silent_by_closed_form(before, 1e-5, n, p, direction, 2_000)
    np.testing.assert_allclose(m, expected, rtol=1e-9, atol=1e-290)


def silent_by_numbers(m: Floats, w: float, p: float, ticks: int) -> Floats:
    """Tick after tick of one up-stream, [C, 1], n = 1, in Python's float64: a ten-million-fold call takes minutes."""
    after = np.empty_like(m)
    for c, growth in enumerate(np.expm1(esr.log_odds("up")).tolist()):
        norm, component = p * growth + 1.0, float(m[c, 0])
        for _ in range(ticks):
            component = (component + w) / norm
        after[c, 0] = component
    return after


def test_python_numbers_tick_bit_for_bit_as_arrays_do() -> None:
    p, m = np.array([1e-7]), np.full((C, 1), 0.3)
    expected = silent_by_numbers(m, 1e-5, 1e-7, 1_000)
    for _ in range(1_000):
        m = _tick(m, 1e-5, 1, p, "up", np.zeros(1))
    np.testing.assert_array_equal(m, expected)


@pytest.mark.statistical
def test_a_rare_stream_of_ten_million_ticks_equals_its_closed_form() -> None:
    """p = 1e-7, a handful of firings: every tick is done, and rounding does not add up to 1e-6."""
    p, one, w, firings = np.array([1e-7]), np.ones(1), 1e-5, [1_000_000, 3_500_000, 3_500_010, 8_000_000]
    dense = lazy = np.zeros((C, 1))
    for last, until in pairwise([0, *firings, 10_000_000]):
        quiet = until - last - (last > 0)  # the firing at `last` had a tick of its own
        dense, lazy = silent_by_numbers(dense, w, 1e-7, quiet), silent_by_closed_form(lazy, w, 1, p, "up", quiet)
        if until in firings:
            dense, lazy = _tick(dense, w, 1, p, "up", one), by_logs(lazy, w, 1, p, "up", one)
    np.testing.assert_allclose(dense, lazy, rtol=1e-6)
    without_firing = silent_by_closed_form(np.zeros((C, 1)), w, 1, p, "up", 1e7)
    assert (without_firing < 0.85 * w * 1e7).all()  # so the decrements, 5e-8 of M a tick and more, do matter
