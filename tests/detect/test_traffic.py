"""Lengths, first positions and segments of requests: a note with a budget of its own, never an incident."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect.armed import mix, traffic
from stream_interp.detect.armed.mix import HISTOGRAMS, SEGMENT
from stream_interp.detect.armed.traffic import TrafficTests
from stream_interp.detect.orders import relearn
from stream_interp.detect.rebaseline import arm
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.view import status_of
from stream_interp.drift import esr
from stream_interp.encode.requests import Request
from stream_interp.records.alert import Position, TrafficShift
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, Marker, read_baseline
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.segments import MANY, counted
from stream_interp.records.window import Window
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE, Driver, requests
from tests.topics.samples import BASELINE, WINDOW

DRIFT = DriftSettings(clock="requests", requests_per_week=1_000)


def lengths(rng: np.random.Generator, n: int, factor: float = 1.0) -> np.ndarray:
    return np.maximum(1, (rng.lognormal(4, 0.7, n) * factor).astype(np.int64))


def histogram(tokens: np.ndarray) -> np.ndarray:
    return np.bincount(length_bins(tokens), minlength=BINS).astype(np.int64)


def baseline(**changes: object) -> BaselineHeader:
    return structs.replace(read_baseline(BASELINE)[0], **changes)


def of(arrays: Arrays, segments: dict[str, int] | None = None) -> Window:
    """A window with these histograms and no others."""
    return Window(structs.replace(WINDOW.header, segments=segments or {}), arrays)


def built_on(rng: np.random.Generator) -> TrafficTests:
    return traffic.build(baseline(), {"length_histogram": histogram(lengths(rng, 10_000))}, DRIFT)


def notes(tests: TrafficTests, rng: np.random.Generator, windows: int, factor: float) -> int | None:
    """Requests until the note; None where there is none."""
    evidence = traffic.initial(tests)
    for k in range(1, windows + 1):
        window = of({"length_histogram": histogram(lengths(rng, 32, factor))})
        evidence = traffic.tick(tests, evidence, window, 32 / DRIFT.requests_per_week)
        if traffic.noted(tests, evidence, None, window) is not None:
            return 32 * k
    return None


@pytest.mark.parametrize(("factor", "within"), [(2.0, 200), (0.5, 200), (0.75, 800), (1.5, 600)])
def test_other_lengths_are_noted(factor: float, within: int) -> None:
    delays = [notes(built_on(np.random.default_rng(s)), np.random.default_rng(s + 50), 60, factor) for s in range(20)]
    assert sum(delay is not None and delay <= within for delay in delays) >= 18


@pytest.mark.parametrize(("known", "now"), [([1], 40), ([0], 40), ([9, 20], 31)])
def test_requests_beyond_all_of_the_baseline_are_noted(known: list[int], now: int) -> None:
    """Where many lie in its last bin, cuts at its quantiles do not tell those beyond from them."""
    all_known = np.resize(known, 1_000)
    beyond = np.where(all_known[:32] == max(known), now, all_known[:32])
    for name in HISTOGRAMS.values():
        tests, window = traffic.build(baseline(), {name: histogram(all_known)}, DRIFT), of({name: histogram(beyond)})
        evidence = traffic.tick(tests, traffic.initial(tests), window, 32 / DRIFT.requests_per_week)
        note = traffic.noted(tests, evidence, None, window)
        (shift,) = traffic.shifts(tests, evidence, note)
        assert (shift.side, shift.tokens, shift.share_baseline) == ("at_least", max(known) + 1, 0.0)


def test_evidence_of_before_the_cuts_beyond_goes_on() -> None:
    tests = built_on(np.random.default_rng(1))
    window = of({"length_histogram": histogram(lengths(np.random.default_rng(2), 32))})
    whole = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    older = replace(whole, m=whole.m[:, :-1], recent=whole.recent[:2])
    again, same = traffic.tick(tests, older, window, 0.1), traffic.tick(tests, whole, window, 0.1)
    np.testing.assert_array_equal(again.m[:, :-1], same.m[:, :-1])
    np.testing.assert_array_equal(again.recent, same.recent)


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
    evidence = traffic.tick(tests, traffic.initial(tests), of(arrays), 0.5)
    note = traffic.noted(tests, evidence, None, of(arrays))
    said = traffic.shifts(tests, evidence, note)
    assert {(s.of, s.side) for s in said} == {("length", "at_least")}
    for shift in said:
        assert shift.share_now is not None
        assert shift.share_now > shift.share_baseline
        from_bin = length_bins(np.array([shift.tokens]))[0]
        assert shift.share_now == pytest.approx(arrays["length_histogram"][from_bin:].sum() / 500)


def test_what_has_moved_is_the_largest_difference_of_the_distribution_functions() -> None:
    known = mix.of_baseline(baseline(), {"start_histogram": histogram(np.repeat([1, 9], [60, 40]))})
    now = np.stack([np.zeros(BINS), 0.5 * histogram(np.repeat([1, 9, 40], [45, 30, 25])), np.zeros(BINS)])
    tests = built_on(np.random.default_rng(0))
    evidence = replace(traffic.initial(tests), recent=now)
    assert traffic.moved(tests, known, evidence, None) == {"length": 0.0, "start": pytest.approx(0.25), "segment": 0.0}


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
    learnt = driver.state.baseline
    assert learnt is not None
    arrays = {**learnt.arrays, "length_histogram": histogram(np.where(np.arange(600) % 2, 6, 9))}
    driver.state = arm(driver.state, replace(learnt, arrays=arrays))
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
    tests = traffic.build(baseline(), {}, DRIFT)
    assert not tests.cuts
    window = of({"length_histogram": histogram(np.full(9, 9))})
    evidence = traffic.tick(tests, traffic.initial(tests), window, 1.0)
    assert traffic.noted(tests, evidence, None, of({})) is None


LEARNT = {"cards": 600, "loans": 300}  # and 100 requests that name none
AS_LEARNT = {"cards": 0.6, "loans": 0.3, "": 0.1}


def of_segments(drawn: np.ndarray) -> Window:
    """A window of one-token requests, of the segments drawn."""
    return of({"length_histogram": histogram(np.ones(len(drawn), int))}, counted(drawn.tolist()))


def segments_noted(
    shares: dict[str, float], seed: int, requests: int = 960, learnt: dict[str, int] | None = None
) -> list[str]:
    """What the note says when it comes, each in words; empty where none comes."""
    learnt = learnt or LEARNT
    n = max(sum(learnt.values()), 1_000)
    tests = traffic.build(baseline(segments=learnt), {"length_histogram": histogram(np.ones(n, int))}, DRIFT)
    rng, evidence = np.random.default_rng(seed), traffic.initial(tests)
    for _ in range(requests // 32):
        window = of_segments(rng.choice(list(shares), 32, p=list(shares.values())))
        evidence = traffic.tick(tests, evidence, window, 32 / DRIFT.requests_per_week)
        if (note := traffic.noted(tests, evidence, None, window)) is not None:
            return [str(shift).partition(",")[0] for shift in traffic.shifts(tests, evidence, note)]
    return []


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"cards": 0.3, "loans": 0.6, "": 0.1}, 'requests of segment "loans": 30.0% in the baseline'),
        ({"cards": 0.2, "loans": 0.7, "": 0.1}, 'requests of segment "cards": 60.0% in the baseline'),
        ({"cards": 0.5, "loans": 0.2, "": 0.3}, "requests that name no segment: 10.0% in the baseline"),
        ({"cards": 0.6, "loans": 0.2, "": 0.1, "web": 0.1},
         "requests of segments that the baseline does not know: 0.0% in the baseline"),
    ],
)  # fmt: skip
def test_another_mix_of_segments_is_noted(shares: dict[str, float], says: str) -> None:
    told = [segments_noted(shares, seed) for seed in range(20)]
    assert sum(says in words for words in told) >= 12  # the others say its counterpart: what one loses another has
    assert sum(bool(words) for words in told) == 20


@pytest.mark.statistical
@pytest.mark.parametrize("learnt", [{"cards": 500, "loans": 400, "web": 100}, {f"s{k}": 1_000 for k in range(10)}])
def test_a_segment_that_leaves_is_noted_though_no_other_grows_by_the_tolerance(learnt: dict[str, int]) -> None:
    *left, gone = learnt
    shares = {name: learnt[name] / (sum(learnt.values()) - learnt[gone]) for name in left}
    for seed in range(20):
        assert segments_noted(shares, seed, learnt=learnt) == [f'requests of segment "{gone}": 10.0% in the baseline']


@pytest.mark.statistical
@pytest.mark.parametrize(("learnt_from", "too_many"), [(1_000, False), (4_000, True)])
def test_rare_segments_that_the_baseline_has_not_seen_yet_are_not_noted(learnt_from: int, too_many: bool) -> None:
    """One request in 40 is of one of 500 segments; the baselines have seen some of them."""
    names = [f"s{k}" for k in range(530)]
    p = np.repeat([0.975 / 30, 0.025 / 500], [30, 500])
    noted = []
    for seed in range(10):
        learnt = counted(np.random.default_rng(seed + 100).choice(names, learnt_from, p=p).tolist())
        assert (MANY in learnt) == too_many
        noted.append(segments_noted(dict(zip(names, p, strict=True)), seed, 30_000, learnt))
    assert not any(noted)


@pytest.mark.statistical
def test_segments_that_come_as_ever_are_not_noted() -> None:
    assert not any(segments_noted(AS_LEARNT, seed) for seed in range(40))


def test_a_segment_s_share_is_told_whether_it_rose_or_fell() -> None:
    tests = traffic.build(baseline(segments=LEARNT), {"length_histogram": histogram(np.ones(1_000, int))}, DRIFT)
    window = of_segments(np.repeat(["loans", "", "web"], [20, 2, 10]))
    evidence = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    note = traffic.TrafficNote(np.arange(len(tests.cuts)), np.zeros((8, 0)), np.zeros(0, np.int64))
    said = {(s.side, s.segment): (s.share_baseline, s.share_now)
            for s in traffic.shifts(tests, evidence, note) if s.of == SEGMENT}  # fmt: skip
    assert said == {
        ("of", "cards"): (pytest.approx(0.6), pytest.approx(0.0)), ("of", "loans"): (pytest.approx(0.3), 20 / 32),
        ("of_none", ""): (pytest.approx(0.1), 2 / 32), ("of_others", ""): (0.0, 10 / 32),
    }  # fmt: skip


def test_of_segments_has_moved_what_those_told_of_gained_or_lost() -> None:
    """Chance moves each of many a little, and that is none of it."""
    arrays = {"length_histogram": histogram(np.ones(1_000, int))}
    tests = traffic.build(baseline(segments=LEARNT), arrays, DRIFT)
    window = of_segments(np.repeat(["loans", "", "web"], [20, 2, 10]))
    evidence = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    known, cuts = mix.of_baseline(baseline(segments=LEARNT), arrays), tests.cuts
    for told, share in [({0}, 0.6), ({1}, 20 / 32 - 0.3), ({0, 1}, 0.6), ({1, 3}, 20 / 32 - 0.3 + 10 / 32), (set(), 0)]:
        crossed = [k for k, cut in enumerate(cuts) if cut.of == SEGMENT and cut.start in told]
        note = traffic.TrafficNote(np.array(crossed, np.int64), np.zeros((8, 0)), np.zeros(0, np.int64))
        assert traffic.moved(tests, known, evidence, note)["segment"] == pytest.approx(share)
    assert traffic.moved(tests, known, evidence, None)["segment"] == 0.0


def test_without_segments_there_is_no_test_of_them() -> None:
    tests = traffic.build(baseline(segments={}), {"length_histogram": histogram(np.ones(1_000, int))}, DRIFT)
    assert SEGMENT not in {cut.of for cut in tests.cuts}
    evidence = traffic.tick(tests, traffic.initial(tests), of_segments(np.full(32, "web")), 0.1)
    assert not evidence.recent[mix.OF.index(SEGMENT)].any()


def test_a_window_that_did_not_count_segments_says_nothing_of_them() -> None:
    tests = traffic.build(baseline(segments=LEARNT), {"length_histogram": histogram(np.ones(1_000, int))}, DRIFT)
    window = Window(structs.replace(WINDOW.header, segments=None), {"length_histogram": histogram(np.ones(320, int))})
    evidence = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    assert traffic.noted(tests, evidence, None, window) is None
    assert not evidence.recent[mix.OF.index(SEGMENT)].any()


def test_one_more_segment_than_there_is_room_for_is_no_other_mix() -> None:
    """The baseline has 64; a window of those and one more keeps the counts of 63."""
    learnt = {f"s{k}": 100 for k in range(64)}
    tests = traffic.build(baseline(segments=learnt), {"length_histogram": histogram(np.ones(6_400, int))}, DRIFT)
    window = of_segments(np.array([*learnt, "another"]))
    assert MANY in (window.header.segments or {})
    evidence = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    assert traffic.noted(tests, evidence, None, window) is None
    assert mix.of_window(window, tests.segments)[SEGMENT][: len(learnt) + 2].sum() == 65


def test_names_that_are_ids_are_others() -> None:
    tests = traffic.build(baseline(segments=LEARNT), {"length_histogram": histogram(np.ones(1_000, int))}, DRIFT)
    window = of_segments(np.array([f"session {k}" for k in range(80)]))
    evidence = traffic.tick(tests, traffic.initial(tests), window, 0.1)
    note = traffic.noted(tests, evidence, None, window)
    assert "of_others" in {shift.side for shift in traffic.shifts(tests, evidence, note)}


def test_a_lane_learns_its_segments_and_says_when_others_come() -> None:
    rng, driver = np.random.default_rng(5), Driver()

    def some(n: int, names: list[str]) -> list[Request]:
        return [replace(r, segment=names[k % len(names)]) for k, r in enumerate(requests(rng, n))]

    driver.feed(some(120, ["cards", "loans", ""]))
    driver.feed(some(480, ["cards", "loans", ""]))
    assert driver.state.baseline is not None
    assert driver.state.baseline.header.segments == {"cards": 160, "loans": 160}
    driver.state = load_state(dump_state(driver.state))
    assert driver.feed(some(240, ["cards", "loans", ""])) == []
    assert driver.feed(some(240, ["cards", "web\x1b[31m", ""])) == ["noted"]
    told = [alert for result in driver.results for alert in result.alerts][-1]
    assert told.cause_hint == "traffic_mix"
    assert {shift.side for shift in told.traffic} <= {"of", "of_others"}
    assert status_of(driver.state, 0, 0).traffic


def test_a_lane_that_learnt_in_part_from_windows_without_segments_is_not_tested_for_them() -> None:
    rng, driver = np.random.default_rng(6), Driver()
    driver.feed(requests(rng, 120))
    driver.feed([replace(r, segment="cards") for r in requests(rng, 240)])
    learned = driver.state.learned
    assert learned is not None
    assert learned.segments == {"cards": 240}
    driver.state = replace(driver.state, learned=replace(learned, segments=None))  # as of a checkpoint of before
    driver.feed([replace(r, segment="cards") for r in requests(rng, 240)])
    assert driver.state.baseline is not None
    assert driver.state.baseline.header.segments == {}
