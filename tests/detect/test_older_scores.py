"""Records of before a score was added: what was frozen stays as it was, and nothing that lies in the log is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import armed
from stream_interp.detect.armed.features import KINDS, RATES
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.detect.state_codec import StateHeader, dump_state, load_state, load_untested
from stream_interp.drift import budget, exceedance
from stream_interp.drift.intervals import DELTA, clopper_pearson, exceedance_bound
from stream_interp.evidence.path import Series, _point
from stream_interp.records.alert import Alert
from stream_interp.records.arrays import pack, unpack
from stream_interp.records.control import read_projector
from stream_interp.records.window import SCORE_TITLES, SCORES, Window, widened
from tests.detect.log import LANE, SETTINGS, consumed, fresh, replayed, story, window_records

BEFORE = 5  # scores that there were
SURPRISE, RARITY = SCORES.index("surprise"), SCORES.index("rarity")
STORY = story()
NEW = STORY.windows


def resized(window: Window, columns: int) -> Window:
    """As a version with so many scores writes it."""
    scores = widened(window.arrays["request_scores"], columns)
    return replace(window, arrays={**window.arrays, "request_scores": scores})


OLD = [resized(w, BEFORE) for w in NEW]


def run(windows: Iterable[Window], partition: WindowsPartition | None = None) -> tuple[LaneState, list[Alert]]:
    start = partition.next_offset if partition else 0
    partition, told = replayed(consumed(window_records(windows), start), partition)
    return partition.lanes[LANE.lane_id], told.alerts


def resumed(state: LaneState) -> WindowsPartition:
    done = state.position.offset
    return WindowsPartition(0, [state], done + 1, done, SETTINGS)


def as_written_before(state: LaneState) -> LaneState:
    """Through a checkpoint of that version: its recent scores have no column of the new one."""
    header, arrays = unpack(dump_state(state), StateHeader)
    cut = {"state.recent_scores"}
    return load_state(pack(header, {k: v[:, :BEFORE] if k in cut else v for k, v in arrays.items()}))


def states(windows: Iterable[Window]) -> list[LaneState]:
    """The lane before any window, and after each."""
    partition, seen = fresh(), list[LaneState]()
    for record in consumed(window_records(windows)):
        replayed([record], partition)
        seen.append(partition.lanes[LANE.lane_id])
    return [seen[0], *seen]


OLD_STATES, NEW_STATES = states(OLD), states(NEW)
CALIBRATE_AT, ARMED_AT = (next(k for k, s in enumerate(NEW_STATES) if s.phase == of) for of in ("calibrate", "armed"))


def test_a_row_means_the_same_test_whatever_the_baseline_has() -> None:
    for columns in range(BEFORE, len(SCORES) + 1):
        names = SCORES[:columns]
        of = [test for test in SCORE_TESTS if test.score in names]
        assert of == list(SCORE_TESTS[: len(of)])
    assert list(SCORE_TITLES) == list(SCORES)
    assert [test for test in SCORE_TESTS if test.score == "surprise"] == [("surprise", "up", "t0")]


@pytest.mark.parametrize(("columns", "tests_then"), [(BEFORE, 7), (RARITY, 8)])
def test_an_old_baseline_keeps_its_bounds_and_its_shares_bit_for_bit(columns: int, tests_then: int) -> None:
    """Half of δ for its thresholds, each as much as the next, and each the same weight in the mean."""
    baseline = NEW_STATES[ARMED_AT].baseline
    assert baseline is not None
    scores = baseline.arrays["calibration_scores"][:, :columns]
    tests = armed.build(baseline.header, {**baseline.arrays, "calibration_scores": scores}, SETTINGS.drift)
    own, n = tests.unit.scores, len(scores)
    assert own.null_rates.shape == (tests_then, 5)
    assert own.weights == (1, 1, 1, 1, 1)
    bounds = [exceedance_bound(k, n, DELTA / 2 / (tests_then * 5)) for k in exceedance.RANKS]
    for rates in own.null_rates:
        assert rates.tolist() == [bound if bound < exceedance.MAX_NULL_RATE else 1.0 for bound in bounds]
    fired, alpha = tests.unit.fired, DELTA / 2 / (len(KINDS) * len(tests.unit.fired))
    high = clopper_pearson(fired, n, alpha)[1] * SETTINGS.drift.tolerance
    up = tests.unit.features[str(RATES[0])]
    np.testing.assert_allclose(up.p[up.armed], high[up.armed], rtol=3e-7)  # rounded outwards to float32
    m = np.arange(1.0, 1 + 8 * tests_then * 5).reshape(8, -1)
    np.testing.assert_array_equal(
        exceedance.value(own, m), exceedance.cells(own, m).sum(axis=-1) / np.maximum(own.usable.sum(axis=-1), 1)
    )


def test_an_old_baseline_has_no_share_for_tests_of_later() -> None:
    baseline = OLD_STATES[ARMED_AT].baseline
    assert baseline is not None
    assert baseline.arrays["calibration_scores"].shape[1] == BEFORE
    tests = armed.build(baseline.header, baseline.arrays, SETTINGS.drift)
    health = sum(
        bool(on) for test, on in zip(SCORE_TESTS, tests.unit.scores.armed, strict=False) if test[2] == "health"
    )
    counts = {**tests.armed_by_group, "t0": 3, "health": health}
    assert tests.thresholds == budget.thresholds(counts, SETTINGS.drift.false_alarms_per_week)
    assert len(tests.score_thresholds()) == 7
    assert not {"surprise", "rarity"} & set(tests.unit.medians)


def test_a_new_baseline_shares_the_budget_of_t0_with_two_more_tests() -> None:
    old, new = OLD_STATES[ARMED_AT].tests, NEW_STATES[ARMED_AT].tests
    assert old is not None
    assert new is not None
    assert new.thresholds["t0"] == pytest.approx(old.thresholds["t0"] * 5 / 3)
    assert new.thresholds["health"] == old.thresholds["health"]
    assert (new.score_thresholds()[-2:] == new.thresholds["t0"]).all()
    assert new.unit.scores.weights == exceedance.TOP_HEAVY


def test_a_score_that_was_never_available_takes_no_share() -> None:
    """Learnt by windows of now with a projector of before."""
    state = NEW_STATES[ARMED_AT]
    assert state.baseline is not None
    arrays = dict(state.baseline.arrays)
    arrays["calibration_scores"] = arrays["calibration_scores"].copy()
    arrays["calibration_scores"][:, [SURPRISE, RARITY]] = np.nan
    tests = armed.build(state.baseline.header, arrays, SETTINGS.drift)
    assert not tests.unit.scores.armed[-2:].any()
    assert np.isinf(tests.score_thresholds()[-2:]).all()
    old = OLD_STATES[ARMED_AT].tests
    assert old is not None
    assert {g: tests.thresholds[g] for g in ("t0", "health")} == {g: old.thresholds[g] for g in ("t0", "health")}


@pytest.mark.parametrize("at", [2, ARMED_AT - 20, ARMED_AT, ARMED_AT + 5, ARMED_AT + 14])
def test_a_log_goes_on_with_windows_of_now_as_it_would_have_gone_on(at: int) -> None:
    """In fit, in calibrate, armed, and in an incident: a lane judged by an old baseline decides as before."""
    expected, alerts = run(OLD)
    state = as_written_before(OLD_STATES[at])
    later = NEW if at >= ARMED_AT else [*OLD[:ARMED_AT], *NEW[ARMED_AT:]]
    found, told = run(later[at:], resumed(state))
    assert told == [a for a in alerts if a.position.offset >= at]
    assert found.baseline is not None
    assert found.baseline.arrays["calibration_scores"].shape[1] == BEFORE
    assert expected.evidence is not None
    assert found.evidence is not None
    np.testing.assert_array_equal(found.evidence.unit.scores.m, expected.evidence.unit.scores.m)
    assert (found.phase, found.incidents) == (expected.phase, expected.incidents) == ("armed", 1)
    assert found.recent_scores.shape[1] == len(SCORES)


def test_a_lane_half_way_through_learning_gets_the_score_from_then_on() -> None:
    half = (CALIBRATE_AT + ARMED_AT) // 2
    state = load_state(dump_state(OLD_STATES[half]))
    for k in range(half, ARMED_AT):  # a checkpoint can be written at any of them
        state = load_state(dump_state(run([NEW[k]], resumed(state))[0]))
    assert state.baseline is not None
    assert state.tests is not None
    scores = state.baseline.arrays["calibration_scores"]
    known = np.isfinite(scores[:, SURPRISE])
    assert not known[: len(known) // 4].any()
    assert known[-100:].all()
    assert state.tests.unit.scores.armed[-1]
    learnt = NEW_STATES[ARMED_AT].baseline
    assert learnt is not None
    np.testing.assert_array_equal(scores[:, :BEFORE], learnt.arrays["calibration_scores"][:, :BEFORE])


@pytest.mark.parametrize("columns", [BEFORE, len(SCORES) + 2])
def test_windows_of_another_version_feed_what_they_have(columns: int) -> None:
    """From an ENCODE of before, beside one of now; and from one that is ahead of DETECT."""
    expected, alerts = run(NEW)
    found, told = run((resized(w, columns) for w in NEW[ARMED_AT:]), resumed(NEW_STATES[ARMED_AT]))
    assert found.recent_scores.shape[1] == len(SCORES)
    assert told[0].transition == "opened"
    if columns > len(SCORES):
        assert told == alerts
        assert dump_state(found) == dump_state(expected)
    else:
        assert "surprise" not in {score.score for alert in told for score in alert.scores}
        assert np.isnan(found.recent_scores[:, SURPRISE]).all()


def test_a_state_without_tests_can_be_written_again() -> None:
    old = as_written_before(OLD_STATES[-1])
    assert dump_state(load_untested(dump_state(old))) == dump_state(old)


def test_the_path_of_a_story_that_begins_under_an_old_baseline() -> None:
    state, row = OLD_STATES[-1], [test.score for test in SCORE_TESTS].index("surprise")
    point = _point(state, Series((("unit", 2), ("unit", row)), ()))
    assert point.log_e["surprise up"] is None
    assert point.log_threshold["surprise up"] is None
    assert point.log_threshold["mahalanobis_sq up"] is not None
    assert _point(NEW_STATES[-1], Series((("unit", row),), ())).log_threshold["surprise up"] is not None


def surprising(by: Callable[[np.ndarray], np.ndarray], column: int = SURPRISE) -> list[Window]:
    """Calm traffic of which the fired sets alone become unusual."""
    changed = []
    for window in NEW[ARMED_AT : ARMED_AT + 8]:
        scores = window.arrays["request_scores"].copy()
        scores[:, column] = by(scores[:, column])
        changed.append(replace(window, arrays={**window.arrays, "request_scores": scores}))
    return changed


@pytest.mark.parametrize("score", ["surprise", "rarity"])
def test_surprise_alone_opens_an_incident_and_only_upwards(score: str) -> None:
    column = SCORES.index(score)
    state, alerts = run(surprising(lambda nats: nats + 20, column), resumed(NEW_STATES[ARMED_AT]))
    assert [(s.score, s.direction, s.group) for s in alerts[0].scores] == [(score, "up", "t0")]
    assert (alerts[0].transition, alerts[0].groups, alerts[0].cause_hint) == ("opened", ["t0"], "data_shift")
    assert alerts[0].explanations_reliable
    drift = alerts[0].scores[0]
    assert drift.now_median is not None
    assert drift.now_median > drift.baseline_median + 1
    assert state.incident is not None
    assert run(surprising(lambda nats: nats * 0, column), resumed(NEW_STATES[ARMED_AT]))[1] == []


def test_surprise_does_not_acquit_an_sae_that_is_out_of_health() -> None:
    """It is made of what the SAE says: were it counted as raw activations, no broken SAE would be called broken."""

    def broken(window: Window) -> Window:
        scores = window.arrays["request_scores"].copy()
        scores[:, SCORES.index("error_share")] *= 50
        return replace(window, arrays={**window.arrays, "request_scores": scores})

    alerts = run(map(broken, surprising(lambda nats: nats + 2)), resumed(NEW_STATES[ARMED_AT]))[1]
    assert set(alerts[-1].groups) == {"health", "t0"}
    assert {a.cause_hint for a in alerts if "health" in a.groups} == {"sae_health"}
    assert not alerts[-1].explanations_reliable


def test_the_projector_says_how_rarely_each_feature_fired_in_fit() -> None:
    (record,) = [c for r in STORY.results for c in r.controls if c.manifest.kind == "projector"]
    header, arrays = read_projector(record)
    fired = [0] * header.d_sae
    for window in NEW:
        if window.header.projector_version == 0:
            for feature, count in zip(window.arrays["feature_ids"], window.arrays["requests_fired"], strict=True):
                fired[feature] += int(count)
    expected = [-np.log((n + 0.5) / (header.fit_requests + 1)) for n in fired]
    np.testing.assert_allclose(arrays["surprise"], expected, rtol=1e-6)
    assert arrays["surprise"].dtype == np.float32
