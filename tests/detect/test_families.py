"""Families of tests beside rates of the unit: magnitudes, means, strata, and who is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import armed
from stream_interp.detect.armed import means
from stream_interp.detect.armed.features import KINDS, Kind, Seen, seen_in
from stream_interp.detect.crossings import Of, _declared, crossings, named_features
from stream_interp.detect.incident import opened_or_joined
from stream_interp.drift import budget
from stream_interp.drift.ebh import e_d_bh
from stream_interp.drift.esr import Floats
from stream_interp.records.alert import Position
from stream_interp.records.control import BaselineHeader
from stream_interp.records.window import SCORES, CutRef, LaneSums, Window, WindowHeader
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE

N, DRIFT = 50_000, DriftSettings(clock="requests", requests_per_week=10_000)
RATE = np.concatenate([np.geomspace(1e-5, 0.9, 60), np.full(540, 0.2)])
STRENGTH = np.linspace(0.05, 0.6, len(RATE))


def header(**changes: object) -> BaselineHeader:
    return BaselineHeader(
        lane=LANE, version=1, projector_version=1, requests=N, fit_requests=1, tokens=1, too_short=0,
        provisional=False, explained_variance=None, l0=None, norm=1.0, massive_share=0.0, **changes,
    )  # fmt: skip


def baseline_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    fired = np.round(RATE * N).astype(np.int64)
    return {
        "requests_fired": fired, "mag_sum": fired * STRENGTH,
        "calibration_scores": rng.standard_normal((2_000, len(SCORES))).astype(np.float32),
    }  # fmt: skip


TESTS = armed.build(header(), baseline_arrays(np.random.default_rng(0)), DRIFT)


def window(rng: np.random.Generator, rate: Floats, strength: Floats, n: int = 32) -> Window:
    fired = rng.binomial(n, rate)
    fired[60:] = np.where(rate[60:] == rate[60], fired[60], fired[60:])  # the dense ones fire together
    ids = np.flatnonzero(fired)
    mag = fired[ids] * strength[ids] * rng.uniform(0.8, 1.2, len(ids))
    return Window(
        WindowHeader(
            lane=LANE, cut=CutRef(topic="t", partition=0, a=0, b=1), requests=n, tokens=n, closed_at_ms=1,
            acts_dtype="float32", projector_version=1, unit_tokens=1, tier="T2", d_in=1, d_sae=len(RATE),
            sums=LaneSums(),
        ),
        {"feature_ids": ids, "requests_fired": fired[ids], "mag_sum": mag,
         "request_scores": rng.standard_normal((n, len(SCORES))).astype(np.float32)},
    )  # fmt: skip


def until_crossed(rate: Floats, strength: Floats, seed: int, at_most: int = 600) -> armed.Tick | None:
    rng, evidence = np.random.default_rng(seed), armed.no_evidence(TESTS)
    for _ in range(at_most):
        tick = armed.update(TESTS, evidence, window(rng, rate, strength), 32 / DRIFT.requests_per_week, None)
        evidence = tick.evidence
        if crossings(TESTS, tick).groups:
            return tick
    return None


def crossed(tests: armed.Tests, tick: armed.Tick) -> set[str]:
    return {of.kind for of, index in crossings(tests, tick).features.items() if len(index)}


def test_shares_of_all_groups_add_up_to_the_budget() -> None:
    assert set(TESTS.thresholds) == set(budget.GROUP_SHARES)
    spent = sum(TESTS.armed_by_group[group] / a for group, a in TESTS.thresholds.items())
    assert spent == pytest.approx(DRIFT.false_alarms_per_week)


def test_a_baseline_of_before_has_neither_magnitudes_nor_means() -> None:
    arrays = baseline_arrays(np.random.default_rng(0))
    del arrays["mag_sum"]
    old = armed.build(header(), arrays, DRIFT)
    assert set(old.thresholds) == {"t0", "health", "features"}
    assert set(old.unit.features) == {"rate up", "rate down"}
    assert not old.means


def test_null_traffic_is_silent() -> None:
    assert until_crossed(RATE, STRENGTH, seed=1) is None


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_a_change_of_strength_alone_is_seen_by_magnitudes_alone(factor: float) -> None:
    strength = STRENGTH.copy()
    strength[400] *= factor
    tick = until_crossed(RATE, strength, seed=2)
    assert tick is not None
    direction = "up" if factor > 1 else "down"
    assert crossed(TESTS, tick) <= {f"magnitude {direction}", f"magnitude_when_fired {direction}"}
    assert crossings(TESTS, tick).groups == {"magnitude"}


def test_a_change_of_rate_alone_leaves_the_strength_of_firings_alone() -> None:
    rate = RATE.copy()
    rate[100] *= 2.5
    tick = until_crossed(rate, STRENGTH, seed=3)
    assert tick is not None
    assert "rate up" in crossed(TESTS, tick)
    assert not any("when_fired" in kind for kind in crossed(TESTS, tick))


def test_a_weak_shift_of_features_that_move_together_shows_in_the_means_first_and_somebody_is_named() -> None:
    rate = RATE.copy()
    rate[60:] *= 1.5
    ticks = [tick for seed in range(10) if (tick := until_crossed(rate, STRENGTH, seed))]
    found = [crossings(TESTS, tick) for tick in ticks]
    by_means = [f for f in found if f.groups == {"means"}]
    assert len(ticks) == 10
    assert len(by_means) >= 5
    for f in by_means:
        named = named_features(f, TESTS)[Of("unit", "rate up")]
        assert len(named)
        assert np.mean(named >= 60) > 0.8


@pytest.mark.parametrize(("beside", "severity"), [({}, "warning"), ({"magnitude up": 2.0}, "critical")])
def test_features_and_means_of_them_are_one_group_of_evidence(beside: dict[str, float], severity: str) -> None:
    """Both just over A; together with strength, which is other evidence, they are two."""
    made = window(np.random.default_rng(7), RATE, STRENGTH)
    tick = armed.update(TESTS, armed.no_evidence(TESTS), made, 1e-3, None)
    values = {of: np.zeros(len(RATE)) for of in tick.features}
    for kind, over_a in {"rate up": 2.0, **beside}.items():
        values["unit", kind][100] = over_a * TESTS.a_weeks(TESTS.unit.features[kind].kind.group)
    of_means = np.full(len(TESTS.means["up"]), 2 * TESTS.a_weeks("means"))
    found = crossings(TESTS, replace(tick, features=values, means={"up": of_means}))
    assert found.groups == {"features", "means", *(["magnitude"] if beside else [])}
    incident = opened_or_joined(None, found, TESTS, 10, 0, made, Position(partition=0, offset=7), 1)
    assert incident is not None
    assert incident.severity == severity


def test_a_mean_is_the_mean_of_its_members() -> None:
    of, statistics = TESTS.means["up"], np.random.default_rng(4).exponential(1, len(RATE))
    statistics[~TESTS.unit.features["rate up"].armed] = 0
    values = means.values(of, statistics)
    assert values[0] == pytest.approx(statistics[TESTS.unit.features["rate up"].armed].mean())
    for row, cluster in enumerate(of.clusters, 1):
        assert values[row] == pytest.approx(statistics[of.cluster == cluster].mean())
        assert (of.cluster == cluster).sum() >= means.MIN_MEMBERS
    assert len(values) == len(of) > 1


def test_features_are_named_by_e_d_bh_over_the_whole_group() -> None:
    tick = armed.update(TESTS, armed.no_evidence(TESTS), window(np.random.default_rng(5), RATE, STRENGTH), 1e-3, None)
    rng, a_weeks = np.random.default_rng(6), TESTS.a_weeks("features")
    kinds = [Of("unit", "rate up"), Of("unit", "rate down")]
    for of in kinds:
        values = np.where(rng.random(len(RATE)) < 0.3, a_weeks / rng.integers(1, 60, len(RATE)), 0)
        tick.features[of] = values * TESTS.unit.features[of.kind].armed
    armed_values = [tick.features[of][TESTS.unit.features[of.kind].armed] for of in kinds]
    slow = e_d_bh(np.concatenate(armed_values), TESTS.armed_by_group["features"] / a_weeks)
    found = _declared(crossings(TESTS, tick), TESTS)
    fast = [tick.features[of][found[of]] for of in kinds]
    np.testing.assert_array_equal(np.concatenate(fast), np.concatenate(armed_values)[slow])
    assert len(slow) > sum((tick.features[of] >= a_weeks).sum() for of in kinds)


def test_time_without_requests_waits_for_the_next_and_is_a_week_at_most() -> None:
    """Evidence that is nothing but time must not alarm."""
    rng = np.random.default_rng(7)
    before = armed.update(TESTS, armed.no_evidence(TESTS), window(rng, RATE, STRENGTH), 0.25, None)
    tick = armed.update(TESTS, before.evidence, window(rng, RATE, STRENGTH, n=0), 1e6, None)
    assert not crossings(TESTS, tick).groups
    for kind in KINDS:
        now, then = (of.features["unit", str(kind)] for of in (tick, before))
        np.testing.assert_array_equal(now, then)
        assert now[TESTS.unit.features[str(kind)].armed].any()
        assert not now[~TESTS.unit.features[str(kind)].armed].any()
    for passed, counted in ((1e6, armed.MOST_WEEKS), (0.5, 0.5 + 0.25)):
        idle = armed.update(TESTS, before.evidence, window(rng, RATE, STRENGTH, n=0), passed, None).evidence
        made = window(rng, RATE, STRENGTH)
        late = armed.update(TESTS, idle, made, 0.25, None)
        at_once = armed.update(TESTS, before.evidence, made, counted, None)
        np.testing.assert_array_equal(late.evidence.unit.scores.m, at_once.evidence.unit.scores.m)
        assert late.evidence.unit.waited == 0


def test_what_fired_only_by_massive_tokens_has_no_magnitude_and_none_exceeds_its_firings() -> None:
    fired = {"feature_ids": np.array([3, 5]), "requests_fired": np.array([0, 2])}
    seen = seen_in(4, {**fired, "mag_sum": np.array([0.4, 2.0000001])})
    assert isinstance(seen, Seen)
    assert seen.ids.tolist() == [5]
    assert seen.mag.tolist() == [2.0]


def test_intervals_of_magnitudes_hold_the_truth() -> None:
    level = TESTS.unit.level(Kind("magnitude", "up"))
    np.testing.assert_allclose(level, RATE * STRENGTH, rtol=0.2, atol=1e-5)
    up, down = (TESTS.unit.features[f"magnitude {d}"] for d in ("up", "down"))
    assert (up.p[up.armed] > level[up.armed] * DRIFT.tolerance).all()
    assert (down.p[down.armed] < level[down.armed] / DRIFT.tolerance).all()
    assert down.armed.sum() > 50
