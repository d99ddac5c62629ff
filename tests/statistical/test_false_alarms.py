"""E[false alarms] ≤ budget with the truth on the boundary of the null, up and down counted separately.

Negative controls fail the same check (`promise.Measured.kept`), so it can see what it is there to see. `pytest -rP`
shows what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
import pytest

from stream_interp.drift.esr import Direction, Floats
from stream_interp.records.window import Window
from tests.statistical import worlds
from tests.statistical.promise import A_REQUESTS, DIRECTIONS, Measured, Tick, alarms_of, measure

pytestmark = pytest.mark.statistical
LANES, REQUESTS = 20, 12_800
COPIES, LANES_OF_COPIES = 5, 200
INDEPENDENT_NOMINAL = 2_000  # alarms, at least


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([6, seed])


def _beta_binomial(correlation: float, seed: int) -> list[Window]:
    return list(worlds.encoded(worlds.beta_binomial(_rng(seed), LANES, correlation), REQUESTS))


def _modulated_inside() -> Iterator[Tick]:
    windows = worlds.encoded(worlds.modulated_inside(_rng(2), LANES), REQUESTS)
    return worlds.by_request(windows, worlds.any_modulated_inside(LANES))


WORLDS: dict[str, Callable[[], Iterable[Tick]]] = {
    "independent": lambda: worlds.independent(_rng(0), LANES, REQUESTS, window=2),
    "beta-binomial in requests": lambda: worlds.by_request(
        _beta_binomial(0.5, seed=1), worlds.any_beta_binomial(LANES, 0.5)
    ),
    "modulated in requests": _modulated_inside,
    "identical": lambda: worlds.identical(_rng(3), LANES_OF_COPIES, REQUESTS, COPIES),
    "seasonal": lambda: worlds.seasonal(_rng(4), LANES, REQUESTS),
    "irregular windows and times": lambda: worlds.irregular(_rng(5), LANES, REQUESTS),
}


@cache
def outcome(world: str) -> tuple[dict[Direction, Floats], float]:
    return alarms_of(WORLDS[world]())


def by_lane(alarms: Floats, nominal: float, lanes: int = LANES, copies: int = 1) -> Measured:
    return measure(alarms.reshape(lanes, -1).sum(axis=1), nominal * len(alarms) / lanes, copies)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("world", WORLDS)
def test_false_alarms_stay_within_the_budget(world: str, direction: Direction) -> None:
    alarms, nominal = outcome(world)
    same = world == "identical"
    copies, lanes = (COPIES, LANES_OF_COPIES) if same else (1, LANES)
    measured = by_lane(alarms[direction], nominal, lanes, copies)
    print(world, direction, measured)
    assert nominal * len(alarms[direction]) / copies >= INDEPENDENT_NOMINAL
    assert measured.kept, measured
    if world == "independent":
        assert measured.ratio >= 0.3, measured  # the budget is used: a detector that never fires passes all else


@cache
def of_tokens(unit: str) -> tuple[dict[Direction, Floats], float]:
    """One and the same windows, read with tokens or with requests as units; correlation 0.2 in a request."""
    if unit == "token":
        return alarms_of(worlds.by_token(_correlated(), np.tile(worlds.RATES, LANES)))
    return alarms_of(worlds.by_request(_correlated(), worlds.any_beta_binomial(LANES, 0.2)))


@cache
def _correlated() -> list[Window]:
    return _beta_binomial(0.2, seed=6)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("unit", "kept"), [("request", True), ("token", False)])
def test_tokens_as_units_break_it_where_requests_keep_it(unit: str, kept: bool, direction: Direction) -> None:
    alarms, nominal = of_tokens(unit)
    measured = by_lane(alarms[direction], nominal)
    print(unit, direction, measured)
    assert measured.kept == kept, measured
    assert (measured.lower > 1) == (not kept), measured


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_third_of_the_threshold_breaks_it(direction: Direction) -> None:
    alarms, a_third_of_nominal = _at_a_third()
    measured = by_lane(alarms[direction], a_third_of_nominal / 3)
    print(direction, measured)
    assert measured.lower > 1, measured
    assert not measured.kept


@cache
def _at_a_third() -> tuple[dict[Direction, Floats], float]:
    return alarms_of(worlds.independent(_rng(0), LANES, REQUESTS), A_REQUESTS / 3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_modulation_across_requests_breaks_it(direction: Direction) -> None:
    """A limit of the promise: E[x | past] ≤ p is false here. `test_design_effect` shows that it is said."""
    alarms, nominal = _across()
    measured = by_lane(alarms[direction], nominal)
    print(direction, measured)
    assert measured.lower > 1, measured
    assert not measured.kept


@cache
def _across() -> tuple[dict[Direction, Floats], float]:
    return alarms_of(worlds.modulated_across(_rng(7), LANES, REQUESTS))


POWERS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])[:, None]


def conformal_alarms(rng: np.random.Generator, n: int, lanes: int, requests: int, a: float) -> Floats:
    """[lanes]: Shiryaev–Roberts over bets κ·p^(κ−1), p = (#{calibration ≥ score} + 1)/(n + 1) of a frozen set of n."""
    calibration, scores = np.sort(rng.random((n, lanes)), axis=0), rng.random((requests, lanes))
    above = [n - np.searchsorted(calibration[:, lane], scores[:, lane]) for lane in range(lanes)]
    bets = POWERS * ((np.arange(n + 1) + 1) / (n + 1)) ** (POWERS - 1)  # [C, n + 1], mean ≤ 1 over p uniform
    m, alarms = np.zeros((len(POWERS), lanes)), np.zeros(lanes)
    for rank in np.stack(above, axis=1):
        m = (m + 1) * bets[:, rank]
        crossed = m.mean(axis=0) >= a
        m[:, crossed] = 0.0
        alarms += crossed
    return alarms


@pytest.mark.parametrize("n", [200, 750])
def test_conformal_p_values_of_a_frozen_set_break_it(n: int) -> None:
    """Given the set, p is not uniform; the larger A, the more this shows: 1,000 requests would not show it."""
    requests, a = 30_000, 100_000.0
    measured = measure(conformal_alarms(_rng(n), n, 200, requests, a), requests / a)
    print(n, measured)
    assert measured.lower > 1, measured
    assert not measured.kept
