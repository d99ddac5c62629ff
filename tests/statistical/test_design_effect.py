"""The audit of independence: silent on independent requests, whatever their features share; sees modulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stream_interp.drift.design_effect import CLUSTER_REQUESTS, absorb, estimate, initial

pytestmark = pytest.mark.statistical
RATES = np.geomspace(0.003, 0.4, 64)
SOJOURN = 50  # requests
WINDOW = 20  # requests, joined in twos
Requests = np.ndarray  # [n, len(RATES)] bool

SLOW = [pytest.param(requests, 1_000, marks=pytest.mark.full) for requests in (1_500, 10_000)]
baselines = pytest.mark.parametrize(("requests", "runs"), [(1_500, 200), *SLOW])


def independent(rng: np.random.Generator, n: int) -> Requests:
    return rng.random((n, len(RATES))) < RATES


def nested(rng: np.random.Generator, n: int) -> Requests:
    """Independent requests, in which a feature fires wherever a rarer one does."""
    return rng.random((n, 1)) < RATES


def identical(rng: np.random.Generator, n: int) -> Requests:
    return np.repeat(rng.random((n, 1)) < 0.1, len(RATES), axis=1)


def modulated(rng: np.random.Generator, n: int, chains: int) -> Requests:
    """Rates of 1.8 and 0.2 times RATES, each for SOJOURN requests in the mean; the features share so many chains."""
    switches = rng.random((n, chains)) < 1 / SOJOURN
    switches[0] = rng.random(chains) < 0.5
    busy = np.logical_xor.accumulate(switches)[:, np.arange(len(RATES)) % chains]
    return rng.random((n, len(RATES))) < RATES * np.where(busy, 1.8, 0.2)


def flagged(requests: Requests) -> bool:
    state = initial(len(RATES), CLUSTER_REQUESTS)
    starts = range(0, len(requests), WINDOW)
    for start, fired in zip(starts, np.add.reduceat(requests, starts, dtype=np.int64), strict=True):
        state = absorb(state, fired, min(WINDOW, len(requests) - start))
    return estimate(state).dependent


@baselines
@pytest.mark.parametrize("world", [independent, nested, identical])
def test_independent_requests_are_not_called_dependent(
    world: Callable[[np.random.Generator, int], Requests], requests: int, runs: int
) -> None:
    rng = np.random.default_rng([requests, runs])
    share = np.mean([flagged(world(rng, requests)) for _ in range(runs)])
    print(share)
    assert share < 0.01


@baselines
@pytest.mark.parametrize("chains", [1, len(RATES)])
def test_modulation_across_requests_is_called_dependent(chains: int, requests: int, runs: int) -> None:
    rng = np.random.default_rng([requests, runs, chains])
    share = np.mean([flagged(modulated(rng, requests, chains)) for _ in range(runs)])
    print(share)
    assert share > 0.99
