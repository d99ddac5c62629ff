"""After an alarm: the sets and intervals equal slow twins, and cover what they promise to cover."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom

from stream_interp.drift import after_alarm, esr
from stream_interp.drift.after_alarm import Counted
from stream_interp.drift.esr import Direction

WINDOW = 16  # requests


def likelihood_ratio(lam: float, n: int, x: int, p: float) -> float:
    return math.exp(lam * x) / (1 - p + p * math.exp(lam)) ** n


def slow_before(n: list[int], x: list[int], p: float, b: int) -> float:
    lams, total = esr.log_odds("up"), 0.0
    for lam in lams:
        for k in range(1, b + 1):
            total += math.prod(likelihood_ratio(lam, n[i], x[i], p) for i in range(b - k, b)) / (k * (k + 1))
    return total / len(lams)


def mixture(n: int, x: int, a: float, b: float) -> float:
    """Request by request: each fires with the posterior mean of those before."""
    outcomes = [(a + i) / (a + b + i) for i in range(x)] + [(b + i) / (a + b + x + i) for i in range(n - x)]
    return math.prod(outcomes)


def slow_after(n: list[int], x: list[int], baseline: Counted, p: float, b: int) -> float:
    total, a0, b0 = 0.0, float(baseline.x) + 0.5, float(baseline.n - baseline.x) + 0.5
    for k in range(1, len(n) - b):
        first, late = slice(b + 1, b + k), slice(b + k, len(n))
        g = mixture(sum(n[first]), sum(x[first]), a0, b0) * mixture(sum(n[late]), sum(x[late]), 0.5, 0.5)
        total += g / (k * (k + 1))
    n_after, x_after = sum(n[b + 1 :]), sum(x[b + 1 :])
    grid = np.append(np.linspace(p, 1, 200_001), max(p, x_after / max(n_after, 1)))
    return total / float(np.max(grid**x_after * (1 - grid) ** (n_after - x_after)))


def counted(n: object, x: object) -> Counted:
    return Counted(np.asarray(n), np.asarray(x))


def test_the_evidence_and_the_set_equal_their_definitions() -> None:
    rng = np.random.default_rng(1)
    n = rng.integers(0, 9, 24)
    x = rng.binomial(n, np.where(np.arange(24) < 12, 0.1, 0.8))
    lists, p, baseline = (n.tolist(), x.tolist()), 0.2, counted(100, 9)
    before = [slow_before(*lists, p, b) for b in range(24)]
    after = [slow_after(*lists, baseline, p, b) for b in range(24)]
    assert np.exp(after_alarm.log_before(counted(n, x), p)) == pytest.approx(before, rel=1e-9)
    assert np.exp(after_alarm.log_after(counted(n, x), baseline, p)) == pytest.approx(after, rel=1e-9)
    kept = after_alarm.change_blocks(after_alarm.log_against(counted(n, x), baseline, p, "up"), 0.0)
    assert kept.tolist() == [max(e) < 2 / after_alarm.ALPHA for e in zip(before, after, strict=True)]
    assert 1 < kept.sum() < 12
    down = after_alarm.log_against(counted(n, n - x), counted(100, 91), 1 - p, "down")
    mirrored = after_alarm.change_blocks(down, 0.0)
    assert mirrored.tolist() == kept.tolist()


def test_a_clear_change_is_found_to_a_window_and_a_short_range_keeps_what_it_cannot_judge() -> None:
    n, x = np.full(40, 32), np.array([0] * 30 + [16] + [32] * 9)  # the change may lie at either end of window 30
    whole, short = (
        after_alarm.log_against(of, counted(1_000, 10), 0.3, "up") for of in (counted(n, x), counted(n, x).to(1))
    )
    found = after_alarm.change_blocks(whole, 0.0)
    assert np.flatnonzero(found).tolist() == [29, 30, 31]
    assert after_alarm.change_blocks(short, 0.0).tolist() == [True]


def test_a_test_that_may_have_alarmed_before_keeps_more() -> None:
    rng = np.random.default_rng(2)
    n = np.full(60, 8)
    x = rng.binomial(n, np.where(np.arange(60) < 40, 0.1, 0.4))
    against = after_alarm.log_against(counted(n, x), counted(500, 50), 0.15, "up")
    sizes = [int(after_alarm.change_blocks(against, f).sum()) for f in (0.0, 0.3, 0.5, 0.99)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_the_rate_interval_is_where_the_mixture_is_below_its_bound() -> None:
    n, x = np.array([0, 1, 1, 40, 40, 1_000, 10_000_000]), np.array([0, 0, 1, 7, 40, 0, 3])
    low, high = after_alarm.rate_interval(counted(n, x), 0.05)
    for i in range(len(n)):
        a, b = int(x[i]), int(n[i] - x[i])
        floor = math.lgamma(a + 0.5) + math.lgamma(b + 0.5) - math.lgamma(a + b + 1) - math.log(math.pi / 0.05)
        for edge, outward in ((low[i], -1e-6), (high[i], 1e-6)):
            q = edge * (1 + outward)
            if 0 < q < 1:
                assert a * math.log(q) + b * math.log1p(-q) < floor
            q = edge * (1 - outward)
            if 0 < q < 1:
                assert a * math.log(q) + b * math.log1p(-q) >= floor
        assert low[i] <= (a / n[i] if n[i] else 0.5) <= high[i]
    assert (low[0], high[0]) == (0, 1)
    assert low[1] == low[5] == 0
    assert high[2] == high[4] == 1


def test_no_upper_end_for_a_feature_that_never_fired_before_and_no_end_at_all_without_a_set() -> None:
    n, x, kept = np.full(20, 10), np.full(20, 3), np.arange(20) < 4
    interval = after_alarm.ratio_interval(counted(n, x), kept, counted(1_000, 0))
    assert interval.low > 10
    assert interval.high == np.inf
    assert after_alarm.ratio_interval(counted(n, x), kept & False, counted(1_000, 10)) == (0.0, np.inf)


def at_least(hits: int, of: int, share: float) -> bool:
    """A coverage of `share` would give so few hits with probability below 1 %: the lower 99 % bound is above it."""
    return bool(binom.sf(hits - 1, of, share) < 0.01)


@pytest.mark.statistical
@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
def test_the_rate_is_inside_at_all_times_together(rate: float) -> None:
    alpha, paths = 0.1, 2_000
    rng = np.random.default_rng(3)
    times = np.unique(np.geomspace(1, 20_000, 60).astype(int))
    fired = np.cumsum(rng.binomial(np.diff(times, prepend=0), rate, (paths, len(times))), axis=1)
    low, high = after_alarm.rate_interval(counted(np.broadcast_to(times, fired.shape), fired), alpha)
    inside = (low <= rate) & (rate <= high)
    assert at_least(int(inside.all(axis=1).sum()), paths, 1 - alpha)
    assert not at_least(int(inside_at_all_times_of_exact_intervals(times, fired, rate, alpha).sum()), paths, 1 - alpha)


def inside_at_all_times_of_exact_intervals(
    times: np.ndarray, fired: np.ndarray, rate: float, alpha: float
) -> np.ndarray:
    """The negative control: intervals that are right at one time each."""
    tail = np.minimum(binom.cdf(fired, times, rate), binom.sf(fired - 1, times, rate))
    return np.asarray((tail >= alpha / 2).all(axis=1))


class World(NamedTuple):
    """A stream that changes, and the null it is tested against.

    Attributes:
        rate, now: before and after.
        p: boundary of the null.
        a: threshold in windows, of an e-SR that gains one a window.
    """

    rate: float
    now: float
    p: float
    a: float = 1e5
    direction: Direction = "up"


WORLDS = [
    World(0.1, 0.2, 0.13),
    World(0.1, 0.5, 0.13),
    World(0.13, 0.5, 0.13),  # the null's worst case: on the boundary
    World(0.01, 0.05, 0.018),
    World(0.01, 0.2, 0.018),
    World(0.13, 0.5, 0.13, a=120),  # often false
    World(0.3, 0.1, 0.2, direction="down"),
    World(0.1, 0.0, 0.07, direction="down"),
]


class Alarmed(NamedTuple):
    x: np.ndarray  # [windows], to some windows after the alarm
    changed: int  # the window that holds the change
    until: int  # windows up to the alarm


def alarms(world: World, runs: int, seed: int) -> list[Alarmed]:
    """Streams that changed in the middle of a window, between window 20 and 80, and alarmed not before."""
    rng = np.random.default_rng(seed)
    changed, before = rng.integers(20, 80, runs), rng.integers(0, WINDOW, runs)
    p, m = np.full(runs, world.p), np.zeros((len(esr.ODDS_RATIOS), runs))
    until, history, every = np.zeros(runs, int), [], np.arange(runs)
    while (until == 0).any() or len(history) < until.max() + 10:
        t = len(history)
        still = np.where(t < changed, WINDOW, np.where(t == changed, before, 0))
        history.append(rng.binomial(still, world.rate) + rng.binomial(WINDOW - still, world.now))
        m = esr.update(m, 1.0, WINDOW, p, world.direction, every, history[-1].astype(float))
        until = np.where((until == 0) & (esr.value(m) >= world.a), t + 1, until)
    x = np.stack(history)
    return [Alarmed(x[: until[i] + 10, i], int(changed[i]), int(until[i])) for i in every if until[i] > changed[i]]


BASELINE_REQUESTS = 5_000


def change_set(world: World, alarmed: Alarmed, alpha: float = after_alarm.ALPHA) -> np.ndarray:
    x = alarmed.x[: alarmed.until]
    baseline = counted(BASELINE_REQUESTS, round(BASELINE_REQUESTS * world.rate * 1.05))  # not quite the truth
    blocks, false_alarm = counted(np.full(len(x), WINDOW), x), alarmed.until / world.a
    against = after_alarm.log_against(blocks, baseline, world.p, world.direction)
    return after_alarm.change_blocks(against, false_alarm, alpha)


@pytest.mark.statistical
@pytest.mark.parametrize("world", WORLDS)
def test_the_set_holds_the_change_of_an_alarm_that_is_not_false(world: World) -> None:
    found = alarms(world, 300, seed=4)
    hits = sum(bool(change_set(world, alarmed)[alarmed.changed]) for alarmed in found)
    assert (len(found) < 300) == (world.a < 1e5)  # false alarms are left out, and only there were some
    assert len(found) > 200
    assert at_least(hits, len(found), 1 - after_alarm.ALPHA)


def most_likely(world: World, alarmed: Alarmed) -> int:
    """The window at which a change from p0 to the mean of what follows is likeliest."""
    x = alarmed.x[: alarmed.until].astype(float)
    fired, n = x[::-1].cumsum()[::-1], WINDOW * np.arange(len(x), 0, -1)
    gain = binom.logpmf(fired, n, fired / n) - binom.logpmf(fired, n, world.rate)
    return int(gain.argmax())


@pytest.mark.statistical
def test_the_most_likely_windows_are_no_such_set() -> None:
    found = alarms(WORLDS[0], 300, seed=4)
    hits = sum(abs(most_likely(WORLDS[0], alarmed) - alarmed.changed) <= 2 for alarmed in found)
    assert not at_least(hits, len(found), 1 - after_alarm.ALPHA)


@pytest.mark.statistical
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("further", [0, 10])
def test_the_interval_holds_the_ratio_at_the_alarm_and_later(world: World, further: int) -> None:
    rng, hits, found = np.random.default_rng(5), 0, alarms(world, 250, seed=6)
    for alarmed in found:
        kept = change_set(world, alarmed, after_alarm.ALPHA / 3)
        x = alarmed.x[: alarmed.until + further]
        baseline = counted(BASELINE_REQUESTS, rng.binomial(BASELINE_REQUESTS, world.rate))
        interval = after_alarm.ratio_interval(counted(np.full(len(x), WINDOW), x), kept, baseline)
        hits += interval.low <= world.now / world.rate <= interval.high
    assert at_least(hits, len(found), 1 - after_alarm.ALPHA)
