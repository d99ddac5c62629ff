"""What `step` decides: learning, silence on null traffic, incidents, recovery, coverage, and its determinism."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect.alerts import incident_id
from stream_interp.detect.armed import MOST_WEEKS, Tick, coverage, features
from stream_interp.detect.armed.features import RATES
from stream_interp.detect.armed.scores import SCORE_TESTS, ScorePeaks
from stream_interp.detect.crossings import Crossings, crossings
from stream_interp.detect.incident import opened_or_joined
from stream_interp.detect.orders import apply_baseline
from stream_interp.detect.step import MS_PER_WEEK, go_blind, new_lane, step
from stream_interp.detect.view import status_of
from stream_interp.drift import esr, recovery
from stream_interp.encode.requests import Request
from stream_interp.records.alert import Position
from stream_interp.records.control import make_control
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status, encode_status
from stream_interp.records.window import Window
from stream_interp.settings import DriftSettings
from tests.detect.lanes import D_SAE, LANE, SETTINGS, Driver, ToySAE, requests, windows


@pytest.fixture(scope="module")
def armed() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    assert driver.state.phase == "armed"
    return driver


def copy_of(driver: Driver) -> Driver:
    copy = Driver()
    copy.state, copy.shape, copy.offset = driver.state, driver.shape, driver.offset
    return copy


def test_learning_has_two_phases_and_emits_projector_then_baseline(armed: Driver) -> None:
    controls = [control.manifest.kind for result in armed.results for control in result.controls]
    assert controls == ["projector", "baseline"]
    baseline = armed.state.baseline
    assert baseline is not None
    assert baseline.header.fit_requests == 120
    assert baseline.header.requests == 480
    assert baseline.header.provisional
    fits = [w for w in armed.windows if w.header.projector_version == 0]
    assert sum(w.header.requests for w in fits) == 120
    later = sum(
        np.bincount(w.arrays["feature_ids"], w.arrays["requests_fired"], D_SAE)
        for w in armed.windows
        if w.header.projector_version
    )
    np.testing.assert_array_equal(baseline.arrays["requests_fired"], later)  # fit requests are in no rate


def test_requests_that_pass_while_the_projector_travels_are_counted_as_such() -> None:
    driver, rng = Driver(), np.random.default_rng(2)
    old_shape = driver.shape
    driver.feed(requests(rng, 120))
    new_shape, driver.shape = driver.shape, old_shape
    driver.feed(requests(rng, 16))
    driver.shape = new_shape
    driver.feed(requests(rng, 480))
    assert driver.state.phase == "armed"
    assert driver.state.reasons == {"projector_travelling": 16}
    assert driver.state.baseline is not None
    assert driver.state.baseline.header.requests == 480
    assert (driver.state.counted, driver.state.seen) == (600, 616)


def test_null_traffic_opens_nothing(armed: Driver) -> None:
    driver = copy_of(armed)
    assert driver.feed(requests(np.random.default_rng(3), 4_000)) == []
    assert status_of(driver.state, 0, 0).state == "ok"


def test_a_shift_opens_one_incident_that_grows_critical(armed: Driver) -> None:
    driver = copy_of(armed)
    transitions = driver.feed(requests(np.random.default_rng(4), 200, shift=1.0))
    assert transitions[0] == "opened"
    assert transitions.count("opened") == 1
    status = status_of(driver.state, 0, 0)
    assert status.state == "critical"
    assert status.incident is not None
    assert status.incident.opened_request <= 40
    assert status.incident.features_drifted > 5
    assert {score.score for score in status.incident.scores} >= {"mahalanobis_sq"}
    strongest = status.incident.features[0]
    assert strongest.log_e >= strongest.log_threshold
    assert abs(strongest.rate_now - strongest.rate_baseline) > 0.1
    assert abs(driver.state.incident.change_estimate_request) <= 16  # type: ignore[union-attr]


def test_it_resolves_on_evidence_and_not_on_silence(armed: Driver) -> None:
    driver, rng = copy_of(armed), np.random.default_rng(5)
    driver.feed(requests(rng, 100, shift=1.0))
    empty = next(windows([], driver.shape, 8, driver.offset), None)
    assert empty is None
    assert driver.state.incident is not None
    transitions = driver.feed(requests(rng, 3_000))
    assert transitions == ["resolved"]
    assert status_of(driver.state, 0, 0).state == "ok"
    assert "opened" in driver.feed(requests(rng, 100, shift=1.0))  # and it is awake again
    assert driver.state.incidents == 2


def test_while_the_drift_lasts_it_does_not_resolve(armed: Driver) -> None:
    driver = copy_of(armed)
    assert "resolved" not in driver.feed(requests(np.random.default_rng(6), 3_000, shift=1.0))


def test_without_an_sae_norm_and_mahalanobis_still_watch() -> None:
    driver, rng = Driver(Lane(model_id="m", hook_name="h"), sae=None), np.random.default_rng(7)
    driver.learn(rng)
    assert driver.state.tests is not None
    assert driver.state.tests.features_armed == 0
    assert set(driver.state.tests.thresholds) <= {"t0", "health"}
    assert driver.feed(requests(rng, 1_000)) == []
    assert "opened" in driver.feed(requests(rng, 100, shift=1.0))


def test_short_requests_feed_no_test_and_are_accounted_for(armed: Driver) -> None:
    driver = copy_of(armed)
    rng = np.random.default_rng(8)
    driver.feed(requests(rng, 40, tokens=3))
    assert driver.state.reasons["too_short"] == 40
    assert driver.state.counted == armed.state.counted
    assert driver.state.seen == armed.state.seen + 40


def test_longer_requests_are_judged_by_their_first_unit_tokens(armed: Driver) -> None:
    driver = copy_of(armed)
    assert driver.feed(requests(np.random.default_rng(9), 1_500, tokens=12)) == ["noted"]  # that they are longer


def test_decisions_are_a_function_of_the_log(armed: Driver) -> None:
    """Twice over the same windows: the same states, alerts and ids; the state given to `step` is left as it was."""
    driver, rng = copy_of(armed), np.random.default_rng(10)
    start = driver.state
    driver.feed(requests(rng, 100))
    driver.feed(requests(rng, 60, shift=1.0))
    state, alerts = start, []
    for window in driver.windows:
        result = step(state, window, Position(partition=0, offset=window.header.cut.b - 1), window.header.closed_at_ms)
        state, alerts = result.state, [*alerts, *result.alerts]
    assert [a.event_id for a in alerts] == [a.event_id for r in driver.results for a in r.alerts]
    assert alerts == [a for r in driver.results for a in r.alerts]
    np.testing.assert_array_equal(state.evidence.unit.scores.m, driver.state.evidence.unit.scores.m)  # type: ignore[union-attr]
    assert len({a.event_id for a in alerts}) == len(alerts) > 0


def test_a_fast_clock_is_an_integrity_error_until_it_stops(armed: Driver) -> None:
    driver = copy_of(armed)
    window = next(windows(requests(np.random.default_rng(11), 8), driver.shape, 8, driver.offset))
    append_ms = window.header.closed_at_ms
    fast = replace(window, header=structs.replace(window.header, closed_at_ms=append_ms + 3_600_000))
    position = Position(partition=0, offset=driver.offset + 8)
    wrong = step(driver.state, fast, position, append_ms)
    assert [a.transition for a in wrong.alerts] == ["integrity_error"]
    assert wrong.state.closed_at_ms == append_ms  # it cannot deafen the lane
    assert status_of(wrong.state, 0, 0).state == "integrity_error"
    among = step(wrong.state, window, position, append_ms + 1_000)  # of another ENCODE, whose clock is right
    assert among.alerts == ()
    assert status_of(among.state, 0, 0).state == "integrity_error"
    assert step(among.state, fast, position, append_ms + 2_000).alerts == ()  # said once, not with every window
    right = step(among.state, window, position, append_ms + 61_000)
    assert [a.transition for a in right.alerts] == ["integrity_restored"]
    assert status_of(right.state, 0, 0).state == "ok"


def test_a_clock_that_falls_behind_is_an_integrity_error_until_it_stops(armed: Driver) -> None:
    """No time passes for the tests then: an hour of drift would not alarm, and the lane would seem to be ok."""
    driver = copy_of(armed)
    window = next(windows(requests(np.random.default_rng(11), 8), driver.shape, 8, driver.offset))
    now_ms, position = window.header.closed_at_ms, Position(partition=0, offset=driver.offset + 8)
    slow = replace(window, header=structs.replace(window.header, closed_at_ms=now_ms - 3_600_000))
    wrong = step(driver.state, slow, position, now_ms)
    assert [(a.transition, a.cause_hint) for a in wrong.alerts] == [("integrity_error", "clock")]
    assert status_of(wrong.state, 0, 0).state == "integrity_error"
    assert step(wrong.state, slow, position, now_ms + 1_000).alerts == ()
    right = step(wrong.state, window, position, now_ms + 61_000)
    assert [a.transition for a in right.alerts] == ["integrity_restored"]


def test_no_clock_is_wrong_that_is_behind_the_log_alone_or_behind_a_fast_one(armed: Driver) -> None:
    """A steady delay costs no time; and a right clock must not pay for one that is a minute fast."""
    window = next(windows(requests(np.random.default_rng(11), 8), armed.shape, 8, armed.offset))
    now_ms, position = window.header.closed_at_ms, Position(partition=0, offset=armed.offset + 8)
    assert step(armed.state, window, position, now_ms + 3_600_000).alerts == ()
    ahead = replace(armed.state, closed_at_ms=now_ms + 90_000)
    assert step(ahead, window, position, now_ms + 30_000).alerts == ()


def test_time_that_goes_back_earns_nothing(armed: Driver) -> None:
    driver = copy_of(armed)
    driver.state = replace(driver.state, settings=structs.replace(SETTINGS, drift=DriftSettings(clock="closed_at")))
    window = next(windows(requests(np.random.default_rng(12), 8), driver.shape, 8, driver.offset))
    late = replace(window, header=structs.replace(window.header, closed_at_ms=1))
    after = step(driver.state, late, Position(partition=0, offset=driver.offset + 8), window.header.closed_at_ms).state
    assert after.weeks == driver.state.weeks
    assert after.closed_at_ms == driver.state.closed_at_ms


def test_blind_is_said_once_and_ends_with_the_next_window(armed: Driver) -> None:
    driver = copy_of(armed)
    at = driver.state.position
    blind = go_blind(driver.state, at.offset, 5, Position(partition=0, offset=at.offset + 1))
    assert [a.transition for a in blind.alerts] == ["blind"]
    assert status_of(blind.state, 0, 0).state == "blind"
    assert go_blind(blind.state, at.offset, 6, Position(partition=0, offset=at.offset + 2)).alerts == ()
    driver.state, driver.offset = blind.state, at.offset + 2
    assert driver.feed(requests(np.random.default_rng(13), 8)) == ["seeing"]
    late = go_blind(driver.state, at.offset, 9, Position(partition=0, offset=driver.offset))
    assert late.alerts == ()  # decided before a window that came meanwhile


def test_a_baseline_from_elsewhere_arms_the_lane_and_an_old_one_changes_nothing(armed: Driver) -> None:
    record = next(c for r in armed.results for c in r.controls if c.manifest.kind == "baseline")
    fresh = new_lane(LANE, SETTINGS, Position(partition=0, offset=-1))
    result = apply_baseline(fresh, record, SETTINGS.drift, Position(partition=0, offset=0))
    driver = copy_of(armed)
    driver.state, driver.offset = result.state, 1
    assert driver.feed(requests(np.random.default_rng(14), 500)) == []
    assert driver.state.counted == 500
    again = apply_baseline(driver.state, record, DriftSettings(tolerance=5.0), Position(partition=0, offset=9_999))
    assert again.state.settings == driver.state.settings
    assert again.state.requests == 500


def test_a_baseline_that_is_not_one_distribution_is_refused() -> None:
    driver, rng = Driver(), np.random.default_rng(15)
    driver.feed(requests(rng, 120))
    driver.feed(requests(rng, 240))
    driver.feed(requests(rng, 240, shift=1.0))
    assert driver.state.phase == "refused"
    status = status_of(driver.state, 0, 0)
    assert status.state == "integrity_error"
    assert "not stationary" in status.reason


def outliers(rng: np.random.Generator, n: int, share: float) -> list[Request]:
    """Null requests, a share of them three times as large."""
    factors = np.where(rng.random(n) < share, 3, 1).astype(np.float32)
    return [replace(r, acts=r.acts * k) for r, k in zip(requests(rng, n), factors, strict=True)]


@pytest.mark.parametrize("seed", [100, 104])
def test_rare_outliers_that_go_on_do_not_pass_for_recovered(seed: int) -> None:
    """They move the highest ranks alone; that the lower ones look normal is no recovery."""
    driver = Driver()
    driver.learn(np.random.default_rng(seed - 100))
    transitions = driver.feed(outliers(np.random.default_rng(seed), 4_000, 0.05))
    assert transitions[0] == "opened"
    assert "resolved" not in transitions


def test_scores_that_are_missing_are_no_evidence_of_recovery(armed: Driver) -> None:
    driver, rng = copy_of(armed), np.random.default_rng(20)
    driver.feed(requests(rng, 60, shift=1.0))
    assert driver.state.incident is not None
    before = driver.state.incident.listed["unit/scores"]
    for window in windows(requests(rng, 800), driver.shape, 8, driver.offset):
        arrays = {**window.arrays, "request_scores": np.full_like(window.arrays["request_scores"], np.nan)}
        position = Position(partition=0, offset=window.header.cut.b - 1)
        result = step(driver.state, Window(window.header, arrays), position, window.header.closed_at_ms)
        driver.state = result.state
        assert all(alert.transition != "resolved" for alert in result.alerts)
    after = driver.state.incident.listed["unit/scores"]
    assert (after.e.mean(axis=0) < recovery.RECOVERING).all()
    assert len(before.index)
    status = status_of(driver.state, 0, 0)
    assert {score.now_median for score in status.incident.scores} == {None}  # type: ignore[union-attr]
    assert read_json(encode_status(status).value, Status) == status  # JSON has no NaN


def test_health_that_crosses_in_an_open_incident_makes_it_critical(armed: Driver) -> None:
    tests, evidence = armed.state.tests, armed.state.evidence
    assert tests is not None
    assert evidence is not None
    a_weeks, d_sae = tests.score_thresholds(), tests.d_sae

    def crossed(*rows: int) -> Crossings:
        peak = np.zeros(len(a_weeks))
        peak[list(rows)] = 2 * a_weeks[list(rows)]
        cells = np.broadcast_to((peak >= a_weeks)[:, None], tests.unit.scores.thresholds.shape)
        peaks = ScorePeaks(peak, cells * peak[:, None], (peak > 0).astype(int))
        silent = {("unit", kind): np.zeros(d_sae) for kind in tests.unit.features}
        return crossings(tests, Tick(evidence, silent, {}, {"unit": peaks}))

    window, health = armed.windows[-1], [i for i, t in enumerate(SCORE_TESTS) if t.group == "health"]
    at = Position(partition=0, offset=7)
    first = opened_or_joined(None, crossed(*health[1:3]), tests, 10, 0, window, at, 1)
    assert first is not None
    assert first.severity == "warning"  # one group, and nothing was open before
    again = opened_or_joined(first, crossed(*health[1:3]), tests, 18, 0, window, at, 1)
    assert again is not None
    assert again.severity == "warning"  # nothing new
    later = opened_or_joined(again, crossed(health[0]), tests, 26, 0, window, at, 1)
    assert later is not None
    assert later.severity == "critical"


def test_a_new_baseline_ends_the_incident_that_the_old_one_judged(armed: Driver) -> None:
    driver = copy_of(armed)
    driver.feed(requests(np.random.default_rng(21), 100, shift=1.0))
    opened = driver.state.incident
    assert opened is not None
    assert driver.state.baseline is not None
    header = structs.replace(driver.state.baseline.header, version=driver.state.baseline.header.version + 1)
    record = make_control("baseline", header, driver.state.baseline.arrays, "operator", "accepted")
    result = apply_baseline(driver.state, record, SETTINGS.drift, Position(partition=0, offset=driver.offset))
    assert [a.transition for a in result.alerts] == ["resolved"]
    assert result.alerts[0].incident_id == incident_id(LANE, opened.number)
    assert status_of(result.state, 0, 0).state == "ok"


def test_time_waits_in_windows_without_a_counted_request(armed: Driver) -> None:
    driver = copy_of(armed)
    driver.state = replace(driver.state, settings=structs.replace(SETTINGS, drift=DriftSettings(clock="closed_at")))
    start = driver.state
    driver.feed(requests(np.random.default_rng(22), 40, tokens=1))
    assert driver.state.weeks > start.weeks
    assert start.evidence is not None
    assert driver.state.evidence is not None
    np.testing.assert_array_equal(driver.state.evidence.unit.scores.m, start.evidence.unit.scores.m)
    assert driver.state.evidence.unit.waited == pytest.approx(driver.state.weeks - start.weeks)


def test_the_first_requests_after_a_break_of_years_open_nothing(armed: Driver) -> None:
    """The time-weighted evidence would be that of the whole break, which one window could not disprove."""
    opened = 0
    for seed in range(20):
        driver = copy_of(armed)
        settings = structs.replace(SETTINGS, drift=DriftSettings(clock="closed_at"))
        driver.state = replace(
            driver.state, settings=settings, closed_at_ms=driver.state.closed_at_ms - 200 * MS_PER_WEEK
        )
        opened += "opened" in driver.feed(requests(np.random.default_rng(100 + seed), 64))
        assert driver.state.weeks - armed.state.weeks < 1.001 * MOST_WEEKS
    assert opened <= 1


def test_a_lane_whose_tokens_are_all_massive_keeps_its_other_tests() -> None:
    """No ordinary token, so no moments, no norm, no Mahalanobis: those tests stay unarmed, and nothing breaks."""
    lane = Lane(model_id="m", hook_name="h")
    driver = Driver(lane, sae=None)
    for _ in range(2):
        driver.shape = replace(driver.shape, massive="norm:0.001")
        driver.feed(requests(np.random.default_rng(23), 480))
    driver.shape = replace(driver.shape, massive="norm:0.001")
    driver.feed(requests(np.random.default_rng(24), 480))
    assert driver.state.phase == "armed"
    assert driver.state.tests is not None
    assert set(driver.state.tests.thresholds) == {"health"}
    status = status_of(driver.state, 0, 0)
    assert status.health.massive_share == 1.0
    assert read_json(encode_status(status).value, Status) == status


@pytest.mark.statistical
@pytest.mark.parametrize("fired", [1, 2, 5, 20, 100, 400])
def test_a_feature_said_to_be_covered_is_seen_at_the_ratio_that_is_said(fired: int) -> None:
    """In most of 100 runs within `sla_requests`, whichever direction the ratio is of."""
    settings, n, runs, rng = DriftSettings(clock="requests"), 1_200, 100, np.random.default_rng(fired)
    tests = [features.build(kind, n, np.full(runs, fired), None, 1e-7, settings, deff=1.0) for kind in RATES]
    rate, a_weeks = np.full(runs, fired / n), 9_000.0
    ratio = coverage.detectable_ratio(rate, tests[0], tests[1], a_weeks, settings)[0]
    seen = np.zeros(runs, bool)
    for direction, now in zip(tests, (rate * ratio, rate / ratio), strict=True):
        m = np.zeros((len(esr.ODDS_RATIOS), runs))
        for _ in range(settings.sla_requests if direction.armed[0] and np.isfinite(ratio) else 0):
            hit = np.flatnonzero(rng.random(runs) < now)
            week = 1 / settings.requests_per_week
            m = esr.update(m, week, 1, direction.p, direction.kind.direction, hit, np.ones(len(hit)))
            seen |= esr.value(m) >= a_weeks
    assert np.isinf(ratio) or seen.mean() > 0.5


class LayerOfMany(ToySAE):
    """A layer of a cross-layer transcoder: features, and no reconstruction error."""

    explains: Literal["input", "output", "nothing"] = "nothing"


def test_without_a_reconstruction_error_the_other_tests_stand() -> None:
    driver = Driver(sae=LayerOfMany())
    driver.learn(np.random.default_rng(1))
    tests = driver.state.tests
    assert driver.state.phase == "armed"
    assert tests is not None
    assert tests.unit.features["rate up"].armed.any()
    assert "error_share" not in tests.unit.medians
    assert "l0" in tests.unit.medians
    assert driver.feed(requests(np.random.default_rng(3), 1_000)) == []
    assert "opened" in driver.feed(requests(np.random.default_rng(4), 400, shift=2.0))
    status = read_json(encode_status(status_of(driver.state, 0, 0)).value, Status)
    assert status.health.explained_variance is None
    assert status.health.explained_variance_baseline is None
    assert status.health.l0 is not None
