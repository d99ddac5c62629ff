"""Baselines that creep away from a lane's anchor; and that no lane gets another baseline by itself."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from msgspec import structs

from stream_interp.cli import alert_text
from stream_interp.detect import anchor
from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.orders import apply_baseline, approve, relearn
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.rebaseline import rebaselined
from stream_interp.detect.state import Baseline, DetectSettings, LaneState
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import StepResult, go_blind, new_lane
from stream_interp.detect.view import status_of
from stream_interp.drift.esr import Floats
from stream_interp.drift.intervals import quantile_interval
from stream_interp.encode.requests import shape_of
from stream_interp.errors import IntegrityError
from stream_interp.records.alert import Position, alert_state
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, Marker, Order, make_control, make_order, read_order
from stream_interp.records.window import SCORES
from stream_interp.settings import DriftSettings, Settings
from tests.detect.lanes import LANE, SETTINGS, Driver, requests
from tests.detect.log import consumed, ids, marker_record, replayed, window_records
from tests.detect.test_bounds import held_bytes

FEATURES, STEP = 400, 1.02
TOLERANCE = DriftSettings().tolerance


def drawn(rng: np.random.Generator, version: int, n: int, rate: Floats, norm: float = 1.0) -> Baseline:
    """A baseline of n requests, of features that fire at these rates and tokens of this mean squared norm."""
    scores = np.full((n, len(SCORES)), np.nan, np.float32)
    scores[:, SCORES.index("mean_sq_norm")] = norm * np.exp(rng.normal(0, 0.2, n))
    header = BaselineHeader(
        lane=LANE, version=version, projector_version=version, requests=n, fit_requests=n // 4, tokens=n * 24,
        too_short=0, provisional=False, explained_variance=0.8, l0=20.0, norm=1.0, massive_share=0.0, unit_tokens=24,
    )  # fmt: skip
    return Baseline(header, {"requests_fired": rng.binomial(n, rate).astype(np.int64), "calibration_scores": scores})


def compared(before: Baseline, after: Baseline) -> bool:
    """Whether one has crept away from the other."""
    return anchor.crept(anchor.kept(before.header, before.arrays), after.header, after.arrays, TOLERANCE) is not None


def openings(seed: int, n: int, factor: Floats, norm: float, baselines: int) -> tuple[int, list[Baseline], LaneState]:
    """The first re-baselining at which creep is told, 0 for none; rates and norm are multiplied at each."""
    rng = np.random.default_rng(seed)
    rate = np.geomspace(0.002, 0.4, FEATURES)
    state, made = new_lane(LANE, DetectSettings(), Position(partition=0, offset=0)), []
    for k in range(baselines):
        made.append(drawn(rng, k + 1, n, np.minimum(rate * factor**k, 0.95), norm**k))
        state, alerts = rebaselined(state, made[-1], k)
        if alerts:
            return k, made, state
    return 0, made, state


@pytest.mark.statistical
@pytest.mark.parametrize(("n", "within"), [(8_000, 25), (1_200, 40)])
def test_a_ramp_of_two_percent_is_caught_against_the_anchor_alone(n: int, within: int) -> None:
    """A tenth of the features; 8,000 and 1,200 are what baselines of 10,000 and 1,500 requests calibrate on."""
    creeping = np.where(np.arange(FEATURES) % 10 == 0, STEP, 1.0)
    for seed in range(5):
        at, made, state = openings(seed, n, creeping, 1.0, within)
        assert STEP**at > TOLERANCE  # not before there is something to say
        assert not any(compared(*pair) for pair in pairwise(made))  # each step is inside it
        assert state.creep is not None
        assert state.creep.anchor == 1
        assert state.creep.moved
        assert all(part.feature is not None and part.feature % 10 == 0 for part in state.creep.moved)


@pytest.mark.statistical
@pytest.mark.parametrize("n", [8_000, 1_200])
def test_a_ramp_of_the_norm_is_caught_soon_after_it_leaves_the_tolerance(n: int) -> None:
    for seed in range(5):
        at, made, state = openings(seed, n, np.ones(FEATURES), STEP, 20)
        assert TOLERANCE < STEP**at < 1.15 * TOLERANCE
        assert not any(compared(*pair) for pair in pairwise(made))
        assert state.creep is not None
        assert {part.of.split(",")[0] for part in state.creep.moved} == {"mean_sq_norm"}


@pytest.mark.statistical
@pytest.mark.parametrize("n", [8_000, 1_200])
def test_baselines_that_stay_within_tolerance_open_nothing(n: int) -> None:
    """Neither noise, nor a change that is real and small."""
    for seed in range(5):
        assert openings(seed, n, np.ones(FEATURES), 1.0, 40)[0] == 0
        rng = np.random.default_rng(seed)
        rate = np.geomspace(0.002, 0.4, FEATURES)
        assert not compared(drawn(rng, 1, n, rate), drawn(rng, 2, n, rate * 1.19, 1.19))


@pytest.mark.statistical
def test_quantile_bounds_hold_for_any_distribution() -> None:
    rng, alpha, missed = np.random.default_rng(3), 0.02, np.zeros(2)
    for _ in range(2_000):
        low, high = quantile_interval(np.sort(rng.exponential(1.0, 90)), 0.9, alpha)
        missed += low > np.log(10), high < np.log(10)
    assert (missed <= 2_000 * alpha + 3 * (2_000 * alpha) ** 0.5).all()
    assert (missed > 0).all()  # they are no wider than they need be
    tied = np.repeat([1.0, 2.0], [30, 60])
    assert quantile_interval(tied, 0.5, alpha) == (2.0, 2.0)
    assert quantile_interval(tied[:3], 0.5, alpha) == (0.0, np.inf)


def test_a_longer_unit_may_fire_more_by_as_much() -> None:
    """No more than by its length: what a feature does in a token is unchanged."""
    rng = np.random.default_rng(4)
    before, after = drawn(rng, 1, 8_000, np.full(9, 0.1)), drawn(rng, 2, 8_000, np.full(9, 0.2))
    assert compared(before, after)
    longer = replace(after, header=structs.replace(after.header, unit_tokens=48))
    assert not compared(before, longer)
    assert not compared(longer, before)
    thrice = drawn(rng, 2, 8_000, np.full(9, 0.3))
    assert compared(before, replace(thrice, header=structs.replace(thrice.header, unit_tokens=48)))


def test_another_sae_is_an_integrity_error() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(IntegrityError, match="not made for this lane"):
        compared(drawn(rng, 1, 100, np.full(9, 0.1)), drawn(rng, 2, 100, np.full(8, 0.1)))


def test_without_an_sae_the_scores_are_compared() -> None:
    rng, none = np.random.default_rng(6), np.zeros(0)
    assert not compared(drawn(rng, 1, 800, none), drawn(rng, 2, 800, none))
    assert compared(drawn(rng, 1, 800, none), drawn(rng, 2, 800, none, norm=2.0))


def test_a_score_that_was_zero_can_be_told() -> None:
    rng = np.random.default_rng(7)
    before, after = (drawn(rng, v, 800, np.zeros(0)) for v in (1, 2))
    arrays: Arrays = {**before.arrays, "calibration_scores": np.zeros_like(before.arrays["calibration_scores"])}
    creep = anchor.crept(anchor.kept(before.header, arrays), after.header, after.arrays, TOLERANCE)
    assert creep is not None
    assert all(np.isfinite(part.at_least) for part in creep.moved)


def test_dependent_requests_vouch_for_less() -> None:
    rng = np.random.default_rng(8)
    before, after = drawn(rng, 1, 1_200, np.full(9, 0.3)), drawn(rng, 2, 1_200, np.full(9, 0.5))
    assert compared(before, after)
    dependent = structs.replace(after.header, design_effect=8.0, dependent=True)
    assert not compared(before, replace(after, header=dependent))


# A lane that was made to learn a shift.

SHIFT = 1.5


def order(state: LaneState, kind: str, version: int = 0, baseline: int = 0) -> Marker:
    version = version or state.closed_at_ms + 1
    return Marker(
        kind=kind, lane=LANE, version=version, baseline_version=baseline, author="ann", reason="wanted",  # type: ignore[arg-type]
        projector_version=version,
    )  # fmt: skip


def relearnt(driver: Driver, shift: float, seed: int) -> StepResult:
    """By order; the result of the step that armed it again."""
    asked = relearn(driver.state, order(driver.state, "relearn"), after(driver.state))
    driver.state, driver.offset, driver.shape = asked.state, driver.offset + 1, shape_of(LANE, None)
    rng = np.random.default_rng(seed)
    driver.feed(requests(rng, 120, shift))
    assert driver.state.anchor is not None
    driver.feed(requests(rng, 480, shift))
    assert driver.state.phase == "armed"
    return driver.results[-1]


def after(state: LaneState) -> Position:
    return Position(partition=0, offset=state.position.offset + 1)


@pytest.fixture(scope="module")
def first_and_second() -> tuple[LaneState, Driver]:
    """The lane before it was told to learn again, and after."""
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    first = driver.state
    assert first.anchor is None
    relearnt(driver, SHIFT, 2)
    return first, driver


@pytest.fixture
def crept(first_and_second: tuple[LaneState, Driver]) -> Driver:
    """Of one's own: a driver moves on, states do not."""
    _, driver = first_and_second
    own = copy(driver)
    own.results, own.windows = list(driver.results), list(driver.windows)
    return own


def test_what_was_learnt_after_a_shift_is_told_and_shown(crept: Driver) -> None:
    (alert,) = crept.results[-1].alerts
    assert (alert.transition, alert.severity, alert.status) == ("noted", "warning", "warning")
    assert (alert.cause_hint, alert.runbook) == ("baseline_creep", "baseline_creep.md")
    assert alert.creep is not None
    status = status_of(crept.state, 0, 0)
    assert (status.state, status.reason, status.creep) == ("warning", "baseline_creep", alert.creep)
    assert status.baseline is not None
    assert status.baseline.anchor == alert.creep.anchor < status.baseline.version
    part = next(part for part in alert.creep.moved if part.feature is not None)
    held = crept.state
    assert held.anchor is not None
    assert held.baseline is not None
    assert part.anchor == held.anchor.fired[part.feature] / held.anchor.requests
    assert part.now == held.baseline.arrays["requests_fired"][part.feature] / held.baseline.header.requests
    text = "\n".join(alert_text.headline(alert_state(alert), 0))
    assert f"feature {part.feature}: {part.anchor:.2%} of requests in the anchor, {part.now:.2%} now" in text


def test_an_incident_of_a_crept_lane_is_what_its_status_shows(crept: Driver) -> None:
    crept.feed(requests(np.random.default_rng(3), 120, shift=-SHIFT))
    status = status_of(crept.state, 0, 0)
    assert status.state == "critical"
    assert status.creep is not None


def test_it_goes_on_while_the_lane_learns_and_ends_when_a_baseline_is_back(crept: Driver) -> None:
    told = crept.state.creep
    asked = relearn(crept.state, order(crept.state, "relearn"), after(crept.state))
    assert (asked.alerts, status_of(asked.state, 0, 0).state, asked.state.creep) == ((), "learning", told)
    (alert,) = relearnt(crept, 0.0, 4).alerts
    assert (alert.transition, alert.cause_hint, alert.creep) == ("note_ended", "baseline_creep", None)
    assert status_of(crept.state, 0, 0).state == "ok"
    assert crept.state.anchor is not None  # still the first


def test_a_baseline_that_has_crept_further_is_no_second_story(crept: Driver) -> None:
    before = crept.state.creep
    assert relearnt(crept, 2 * SHIFT, 5).alerts == ()
    assert crept.state.creep is not None
    assert before is not None
    assert crept.state.creep.anchor == before.anchor
    assert crept.state.creep != before


def test_an_approved_baseline_is_the_anchor_from_then_on(crept: Driver) -> None:
    held = crept.state.baseline
    assert held is not None
    void = approve(crept.state, order(crept.state, "approve", baseline=held.header.version - 1), after(crept.state))
    assert (void.alerts, void.state.creep) == ((), crept.state.creep)
    result = approve(crept.state, order(crept.state, "approve", baseline=held.header.version), after(crept.state))
    (alert,) = result.alerts
    assert (alert.transition, alert.note) == ("note_ended", "approved by ann (as claimed): wanted")
    status = status_of(result.state, 0, 0)
    assert status.baseline is not None
    assert (status.state, status.baseline.anchor) == ("ok", held.header.version)
    crept.state = result.state
    assert relearnt(crept, SHIFT, 6).alerts == ()
    assert crept.state.anchor is not None
    assert crept.state.anchor.version == held.header.version


def test_the_anchor_promoted_ends_it(crept: Driver, first_and_second: tuple[LaneState, Driver]) -> None:
    first, second = first_and_second[0].baseline, crept.state.baseline
    assert first is not None
    assert second is not None
    version = second.header.version + 1
    header = structs.replace(first.header, version=version, projector_version=version, origin=first.header.version)
    record = make_control("baseline", header, first.arrays, "ann", "")
    result = apply_baseline(crept.state, record, DriftSettings(), after(crept.state))
    assert [(a.transition, a.cause_hint) for a in result.alerts] == [("note_ended", "baseline_creep")]


def test_an_approval_is_marked_once_and_only_where_it_changes_something(crept: Driver) -> None:
    held, watch = crept.state.baseline, LaneWatch(0)
    assert held is not None
    version = held.header.version

    def due(baseline: int, state: LaneState, watch: LaneWatch) -> Marker | None:
        record = make_order(Order(kind="approve", lane=LANE, version=9, baseline_version=baseline), "ann", "wanted")
        return watch.order_marker(state, record.manifest, read_order(record), Settings())

    assert due(version - 1, crept.state, watch) is None
    marker = due(version, crept.state, watch)
    assert marker is not None
    assert (marker.kind, marker.baseline_version) == ("approve", version)
    assert due(version, crept.state, watch) is None
    approved = approve(crept.state, marker, after(crept.state)).state
    assert due(version, approved, LaneWatch(0)) is None  # a DETECT that starts afterwards reads the order again


def creeping_log() -> list:
    """Records of a lane that learns, is told to learn again what has shifted, and whose baseline is approved."""
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    first, relearning = len(driver.windows), marker_record(order(driver.state, "relearn"))
    relearnt(driver, SHIFT, 2)
    held = driver.state.baseline
    assert held is not None
    approval = marker_record(order(driver.state, "approve", baseline=held.header.version))
    made = window_records(driver.windows)
    return consumed([*made[:first], relearning, *made[first:], approval])


def test_a_replay_and_a_restart_anywhere_tell_the_same() -> None:
    log = creeping_log()
    whole, told = replayed(log)
    assert [a.cause_hint for a in told.alerts] == ["baseline_creep"] * 2
    assert ids(replayed(log)[1].alerts) == ids(told.alerts)
    expected = dump_state(whole.lanes[LANE.lane_id])
    for cut in (40, len(log) - 30, len(log) - 1):
        before, first = replayed(log[:cut])
        restored = load_state(dump_state(before.lanes[LANE.lane_id]))
        partition = WindowsPartition(0, [restored], cut, cut - 1, SETTINGS)
        partition, rest = replayed(log[cut:], partition)
        assert ids([*first.alerts, *rest.alerts]) == ids(told.alerts)
        assert dump_state(partition.lanes[LANE.lane_id]) == expected


def test_an_anchor_adds_what_is_printed() -> None:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    alone = held_bytes(driver.state)
    relearnt(driver, 0.0, 8)
    assert driver.state.anchor is not None
    assert held_bytes(driver.state) - alone <= 8 * len(driver.state.anchor.fired) + 500


# Re-baselining.


def test_a_lane_in_an_incident_gets_no_other_baseline_without_an_order() -> None:
    """Whatever comes: much more of the drift, settings that ask for less, silence, records that cannot be read,
    windows of other projectors, a restart."""
    driver, rng = Driver(), np.random.default_rng(9)
    driver.learn(rng)
    driver.feed(requests(rng, 80, shift=SHIFT))
    held, opened = driver.state.baseline, driver.state.incident
    assert opened is not None
    asks_less = structs.replace(SETTINGS, baseline_requests=50, drift=DriftSettings(tolerance=1.0))
    partition = WindowsPartition(0, [load_state(dump_state(driver.state))], 0, -1, asks_less)
    driver.state = partition.lanes[LANE.lane_id]
    driver.feed(requests(rng, 3 * SETTINGS.baseline_requests, shift=SHIFT))
    calibrated, driver.shape = driver.shape, shape_of(LANE, None)
    driver.feed(requests(rng, 2 * SETTINGS.baseline_requests, shift=SHIFT))  # *fit* windows, of an ENCODE gone astray
    driver.state = go_blind(driver.state, 10**6, driver.state.closed_at_ms, driver.state.position).state
    partition.lanes[LANE.lane_id] = driver.state
    [record] = consumed(window_records(driver.windows[-1:]), start=driver.offset)
    _, told = replayed([record._replace(value=b"nothing")], partition)
    driver.state, driver.offset, driver.shape = partition.lanes[LANE.lane_id], driver.offset + 1, calibrated
    driver.feed(requests(rng, 80, shift=SHIFT))
    assert [a.transition for a in told.alerts] == ["integrity_error"]
    assert _versions(driver.state) == (_version(held), _version(held))
    assert driver.state.phase == "armed"
    assert driver.state.incident is not None
    assert driver.state.incident.number == opened.number
    assert [c.manifest.kind for r in driver.results for c in r.controls] == ["projector", "baseline"]


def _version(baseline: Baseline | None) -> int:
    assert baseline is not None
    return baseline.header.version


def _versions(state: LaneState) -> tuple[int, int]:
    """Of the baseline, and of the anchor."""
    return _version(state.baseline), state.anchor.version if state.anchor else _version(state.baseline)
