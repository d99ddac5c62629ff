"""Lengths and first positions of requests: a note with a budget of its own, never an incident."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect.armed import traffic
from stream_interp.detect.armed.traffic import TrafficTests
from stream_interp.detect.orders import relearn
from stream_interp.detect.rebaseline import arm
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.view import status_of
from stream_interp.drift import esr
from stream_interp.records.alert import Position, TrafficShift
from stream_interp.records.control import Marker
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.window import Window
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE, Driver, requests

DRIFT = DriftSettings(clock="requests", requests_per_week=1_000)


def lengths(rng: np.random.Generator, n: int, factor: float = 1.0) -> np.ndarray:
    return np.maximum(1, (rng.lognormal(4, 0.7, n) * factor).astype(np.int64))


def histogram(tokens: np.ndarray) -> np.ndarray:
    return np.bincount(length_bins(tokens), minlength=BINS).astype(np.int64)


def built_on(rng: np.random.Generator) -> TrafficTests:
    return traffic.build({"length_histogram": histogram(lengths(rng, 10_000))}, DRIFT)


def notes(tests: TrafficTests, rng: np.random.Generator, windows: int, factor: float) -> int | None:
    """Requests until the note; None where there is none."""
    evidence = traffic.initial(tests)
    for k in range(1, windows + 1):
        arrays = {"length_histogram": histogram(lengths(rng, 32, factor))}
        evidence = traffic.tick(tests, evidence, arrays, 32 / DRIFT.requests_per_week)
        if traffic.noted(tests, evidence, None, arrays) is not None:
            return 32 * k
    return None


@pytest.mark.parametrize(("factor", "within"), [(2.0, 200), (0.5, 200), (0.75, 800), (1.5, 600)])
def test_other_lengths_are_noted(factor: float, within: int) -> None:
    delays = [notes(built_on(np.random.default_rng(s)), np.random.default_rng(s + 50), 60, factor) for s in range(20)]
    assert sum(delay is not None and delay <= within for delay in delays) >= 18


@pytest.mark.parametrize(("known", "now"), [([1], 40), ([0], 40), ([9, 20], 31)])
def test_requests_beyond_all_of_the_baseline_are_noted(known: list[int], now: int) -> None:
    """Where many lie in its last bin, cuts at its quantiles do not tell those beyond from them."""
    of = np.resize(known, 1_000)
    for name in traffic.HISTOGRAMS:
        tests = traffic.build({name: histogram(of)}, DRIFT)
        evidence, arrays = traffic.initial(tests), {name: histogram(np.where(of[:32] == max(known), now, of[:32]))}
        evidence = traffic.tick(tests, evidence, arrays, 32 / DRIFT.requests_per_week)
        note = traffic.noted(tests, evidence, None, arrays)
        (shift,) = traffic.shifts(tests, evidence, note)
        assert (shift.side, shift.tokens, shift.share_baseline) == ("at_least", max(known) + 1, 0.0)


def test_evidence_of_before_the_cuts_beyond_goes_on() -> None:
    tests = built_on(np.random.default_rng(1))
    arrays = {"length_histogram": histogram(lengths(np.random.default_rng(2), 32))}
    whole = traffic.tick(tests, traffic.initial(tests), arrays, 0.1)
    older = replace(whole, m=whole.m[:, :-1])
    again = traffic.tick(tests, older, arrays, 0.1).m
    np.testing.assert_array_equal(again[:, :-1], traffic.tick(tests, whole, arrays, 0.1).m[:, :-1])


@pytest.mark.statistical
def test_notes_on_a_null_stay_within_their_budget_even_on_the_boundary() -> None:
    """Every share at its p: the lower 99 % bound of the count is at most the budget."""
    rng = np.random.default_rng(1)
    tests, windows, runs = built_on(rng), 4_000, 10
    alarms = 0
    for _ in range(runs):
        m = np.zeros((len(esr.ODDS_RATIOS), len(tests.cuts)))
        for _ in range(windows):
            x = rng.binomial(32, tests.p).astype(float)
            m = esr.update(m, 32 / DRIFT.requests_per_week, np.full(len(x), 32.0), tests.p, "up", np.arange(len(x)), x)
            crossed = esr.value(m) >= tests.a_weeks
            alarms += int(crossed.sum())
            m[:, crossed] = 0
    allowed = runs * windows * 32 / DRIFT.requests_per_week * DRIFT.false_alarms_per_week
    assert alarms - 2.33 * alarms**0.5 <= allowed
    assert alarms >= 0.2 * allowed  # the cuts hang together, and yet it is no empty promise


def test_shares_say_what_changed() -> None:
    rng = np.random.default_rng(2)
    tests, arrays = built_on(rng), {"length_histogram": histogram(lengths(rng, 500, 3.0))}
    evidence = traffic.tick(tests, traffic.initial(tests), arrays, 0.5)
    note = traffic.noted(tests, evidence, None, arrays)
    said = traffic.shifts(tests, evidence, note)
    assert {(s.of, s.side) for s in said} == {("length", "at_least")}
    for shift in said:
        assert shift.share_now is not None
        assert shift.share_now > shift.share_baseline
        from_bin = length_bins(np.array([shift.tokens]))[0]
        assert shift.share_now == pytest.approx(arrays["length_histogram"][from_bin:].sum() / 500)


def test_what_has_moved_is_the_largest_difference_of_the_distribution_functions() -> None:
    arrays = {"start_histogram": histogram(np.repeat([1, 9], [60, 40]))}
    now = np.stack([np.zeros(BINS), 0.5 * histogram(np.repeat([1, 9, 40], [45, 30, 25]))])
    evidence = replace(traffic.initial(traffic.build(arrays, DRIFT)), recent=now)
    assert traffic.moved(arrays, evidence) == {"length": 0.0, "start": pytest.approx(0.25)}


def test_a_shift_in_words() -> None:
    shift = TrafficShift(of="length", side="at_least", tokens=1024, share_baseline=0.1, share_now=0.55)
    assert str(shift) == "requests of 1,024 or more tokens: 10.0% in the baseline, 55.0% now"
    start = TrafficShift(of="start", side="below", tokens=7, share_baseline=0.1, share_now=None)
    assert str(start) == "requests whose first token is before 7: 10.0% in the baseline, none came lately"


@pytest.fixture(scope="module")
def armed() -> Driver:
    """Requests of 6 tokens each; the baseline knows it."""
    driver = Driver()
    driver.learn(np.random.default_rng(3))
    baseline = driver.state.baseline
    assert baseline is not None
    arrays = {**baseline.arrays, "length_histogram": histogram(np.where(np.arange(600) % 2, 6, 9))}
    driver.state = arm(driver.state, replace(baseline, arrays=arrays))
    return driver


def mixed(window: Window, tokens: int) -> Window:
    """The same requests, as if each were so long: what is tested of them is their first tokens."""
    long = histogram(np.full(window.header.requests, tokens))
    return Window(window.header, {**window.arrays, "length_histogram": long})


def test_a_lane_is_told_once_and_told_when_it_is_over(armed: Driver) -> None:
    driver = Driver()
    driver.state, driver.shape, driver.offset = armed.state, armed.shape, armed.offset
    told, statuses = [], []
    driver.feed(requests(np.random.default_rng(4), 1_600))
    for k, window in enumerate(driver.windows):
        tokens = 12 if 20 <= k < 80 else 6 if k % 2 else 9
        at = Position(partition=0, offset=window.header.cut.b - 1)
        result = step(driver.state if k else armed.state, mixed(window, tokens), at, window.header.closed_at_ms)
        driver.state = load_state(dump_state(result.state))
        told += result.alerts
        statuses.append(status_of(result.state, 0, 0))
    assert [(a.transition, a.severity, a.cause_hint, a.status) for a in told] == [
        ("noted", "info", "traffic_mix", "ok"), ("note_ended", "info", "traffic_mix", "ok"),
    ]  # fmt: skip
    assert told[0].incident_id == told[1].incident_id
    assert told[0].traffic
    assert {s.state for s in statuses} == {"ok"}
    assert any(s.traffic for s in statuses)
    assert not statuses[-1].traffic


def test_what_ends_a_lane_s_baseline_ends_its_note(armed: Driver) -> None:
    note = traffic.TrafficNote(np.array([0]), np.zeros((8, 1)), np.zeros(1, np.int64))
    state = replace(armed.state, traffic_note=note)
    marker = Marker(kind="relearn", lane=LANE, version=state.closed_at_ms + 1)
    result = relearn(state, marker, Position(partition=0, offset=9_999))
    assert [(a.transition, a.cause_hint) for a in result.alerts] == [("note_ended", "traffic_mix")]
    assert result.state.traffic_note is None


def test_a_baseline_without_lengths_has_no_such_test() -> None:
    tests = traffic.build({}, structs.replace(DRIFT))
    assert not tests.cuts
    evidence = traffic.tick(tests, traffic.initial(tests), {"length_histogram": histogram(np.full(9, 9))}, 1.0)
    assert traffic.noted(tests, evidence, None, {}) is None
