"""The vectorised e-SR against its definition, and at the edges of float64."""

from __future__ import annotations

import numpy as np
import pytest

from stream_interp.drift import esr


def by_definition(p: float, direction: esr.Direction, ticks: list[tuple[float, int, int]]) -> float:
    """Slow twin: the mean over components of Σ_j w_j Π_{i≥j} L_i, term by term. `ticks` are (w, n, Σx)."""
    total = 0.0
    for lam in esr.log_odds(direction):
        log_l = [lam * x - n * np.log(1 - p + p * np.exp(lam)) for _, n, x in ticks]
        total += sum(w * np.exp(sum(log_l[j:])) for j, (w, _, _) in enumerate(ticks))
    return total / len(esr.ODDS_RATIOS)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_equals_its_definition(direction: esr.Direction) -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.001, 0.6, 40)
    m, history = np.zeros((len(esr.ODDS_RATIOS), len(p))), []
    for _ in range(30):
        n, w = int(rng.integers(1, 40)), float(rng.exponential(1e-4))
        x = rng.binomial(n, p)
        fired = np.flatnonzero(x)
        m = esr.update(m, w, n, p, direction, fired, x[fired].astype(float))
        history.append((w, n, x))
    slow = [by_definition(p[k], direction, [(w, n, int(x[k])) for w, n, x in history]) for k in range(len(p))]
    np.testing.assert_allclose(esr.value(m), slow, rtol=1e-9)


def test_likelihood_ratio_has_mean_at_most_one_for_any_bounded_x() -> None:
    """E[e^{λx}] ≤ 1 − p + p·e^λ for every x in [0, 1] with mean p, not only for 0/1."""
    for p in (0.01, 0.3, 0.9):
        for direction in ("up", "down"):
            lam, norm = esr.log_odds(direction), esr.log_normaliser(np.array([p]), direction)[:, 0]
            for low, high in ((0.0, 1.0), (p, p), (p / 2, min(1.0, 2 * p))):
                weight = (p - low) / (high - low) if high > low else 1.0
                mean = weight * np.exp(lam * high - norm) + (1 - weight) * np.exp(lam * low - norm)
                assert (mean <= 1 + 1e-12).all()


def test_a_boundary_null_is_a_martingale() -> None:
    rng = np.random.default_rng(2)
    p = np.full(200_000, 0.05)
    x = rng.binomial(8, p)
    fired = np.flatnonzero(x)
    m = esr.update(np.zeros((len(esr.ODDS_RATIOS), len(p))), 1.0, 8, p, "up", fired, x[fired] * 1.0)
    np.testing.assert_allclose(m[:3].mean(axis=1), 1.0, atol=0.05)  # the wildest ratios have too much variance to see


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("n", [1, 32, 10_000])
def test_extreme_windows_stay_finite(direction: esr.Direction, n: int) -> None:
    p = np.array([1e-9, 1e-4, 0.5, 0.95, 0.999999])
    for start, w in ((0.0, 0.0), (0.0, 1e-8), (1e-300, 0.0), (esr.CEILING, 1e-8)):
        for x in (1, n):
            m = np.full((len(esr.ODDS_RATIOS), len(p)), start)
            m = esr.update(m, w, n, p, direction, np.arange(0, len(p), 2), np.full(3, float(x)))
            assert np.isfinite(m).all()
            assert (m >= 0).all()
            assert (m <= esr.CEILING).all()


def test_streams_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.01, 0.5, 30)
    order = rng.permutation(30)
    m, x = rng.exponential(1, (len(esr.ODDS_RATIOS), 30)), rng.integers(1, 5, 30).astype(float)
    whole = esr.update(m, 0.1, 8, p, "up", np.arange(30), x)
    shuffled = esr.update(m[:, order], 0.1, 8, p[order], "up", np.arange(30), x[order])
    np.testing.assert_array_equal(whole[:, order], shuffled)


def test_the_state_given_is_left_as_it_was() -> None:
    p = np.array([0.1])
    m = np.ones((len(esr.ODDS_RATIOS), 1))
    esr.update(m, 0.5, 4, p, "up", np.array([0]), np.array([4.0]))
    assert (m == 1).all()
