"""The classical detectors against river: every alarm, and the state at every observation, bit for bit in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM, EDDM, FHDDM, HDDMA, HDDMW
from scipy.stats import fisher_exact

from stream_interp.drift.classical import DETECTORS, adwin

Values = dict[str, Any]


def _page_hinkley(d: Any) -> Values:
    of = {"rise": d._sum_increase, "fall": d._sum_decrease, "lowest_rise": d._min_increase}
    return {"n": d._x_mean.n, "mean": d._x_mean.get(), "highest_fall": d._max_decrease, **of}


def _adwin(d: Any) -> Values:
    return {"window.width": d.width, "window.total": d.total, "window.variance": d.variance}


def _ddm(d: Any) -> Values:
    missing = d._p_min is None
    return {
        "n": d._p.n, "p": d._p.get(),
        "p_min": np.inf if missing else d._p_min, "s_min": np.inf if missing else d._s_min,
    }  # fmt: skip


def _eddm(d: Any) -> Values:
    distances = {"mean": d._error_distances.mean.get(), "squares": d._error_distances._S}
    return {
        "n": d._n, "events": d._n_errors, "last_event": d._last_error, "highest": d._p2s_prime_max, **distances,
    }  # fmt: skip


def _hddm_a(d: Any) -> Values:
    cuts = {"cut_n": [d._x_min.n, d._x_max.n], "cut_mean": [d._x_min.get(), d._x_max.get()]}
    return {"n": d._z.n, "mean": d._z.get(), **cuts}


def _hddm_w(d: Any) -> Values:
    before, since = (d._s1_incr, d._s1_decr), (d._s2_incr, d._s2_decr)
    return {
        "total": d._total.ewma, "total_b": d._total.ibc, "lowest": [d._incr_cutpoint, -d._decr_cutpoint],
        "before": [s.ewma for s in before], "before_b": [s.ibc for s in before],
        "since": [s.ewma for s in since], "since_b": [s.ibc for s in since],
    }  # fmt: skip


def _kswin(d: Any) -> Values:
    return {"n": d.n, "p_value": d.p_value}


def _fhddm(d: Any) -> Values:
    return {"n": len(d._sliding_window), "ones": d.n_one, "highest": d._u_max}


# ours, river's, where river keeps its state, and settings of both that alarm often
TWINS: dict[str, tuple[Callable[..., Any], Callable[[Any], Values], dict[str, Any]]] = {
    "adwin": (ADWIN, _adwin, {"delta": 0.2, "clock": 4, "max_buckets": 3, "min_window_length": 3, "grace_period": 6}),
    "page_hinkley": (PageHinkley, _page_hinkley, {"min_instances": 10, "delta": 0.01, "threshold": 3.0, "alpha": 0.99}),
    "ddm": (DDM, _ddm, {"warm_start": 12, "drift_threshold": 1.5}),
    "eddm": (EDDM, _eddm, {"warm_start": 8, "beta": 0.95}),
    "fhddm": (FHDDM, _fhddm, {"sliding_window_size": 12, "confidence_level": 0.05}),
    "kswin": (KSWIN, _kswin, {"alpha": 0.05, "window_size": 24, "stat_size": 10, "seed": 5}),
    "hddm_a": (HDDMA, _hddm_a, {"drift_confidence": 0.05, "two_sided_test": True}),
    "hddm_w": (HDDMW, _hddm_w, {"drift_confidence": 0.5, "lambda_val": 0.2, "two_sided_test": True}),
}
DEFAULTS = {"kswin": {"seed": 0}}  # river's own is drawn from the clock
STEPS = {"kswin": 110}  # river's takes a millisecond an observation
BINARY = sorted(name for name in TWINS if DETECTORS[name].binary)


def agree(name: str, x: np.ndarray, **parameters: Any) -> int:
    """Runs both over x [T, K] and compares; returns the number of alarms."""
    theirs, values_of, _ = TWINS[name]
    parameters = parameters or DEFAULTS.get(name, {})
    config = DETECTORS[name].config(**parameters)
    rivers = [theirs(**parameters) for _ in range(x.shape[1])]
    state, alarms = DETECTORS[name].start(config, x.shape[1]), 0
    for t, row in enumerate(x):
        state, drift = DETECTORS[name].step(config, state, row)
        for detector, value in zip(rivers, row.tolist(), strict=True):
            detector.update(value)
        assert drift.tolist() == [d.drift_detected for d in rivers], f"{name}: alarms at {t}"
        values = [values_of(d) for d in rivers]
        for field in values[0]:  # + 0.0: the sign of a zero does not count
            expected = np.array([v[field] for v in values], np.float64).T
            assert (attrgetter(field)(state) + 0.0).tobytes() == (expected + 0.0).tobytes(), f"{name}: {field} at {t}"
        alarms += int(drift.sum())
    return alarms


def bits(steps: int, streams: int) -> np.ndarray:
    """Bernoulli 0.001, 0.05, 0.5, all zeros, all ones, and steps between rates, in turn."""
    rng = np.random.default_rng(11)
    before, after = np.resize([0.001, 0.05, 0.5, 0, 1, 0.05, 0.5, 0], streams), np.resize(
        [0.001, 0.05, 0.5, 0, 1, 0.5, 0.01, 1], streams
    )  # fmt: skip
    rates = np.where(np.arange(steps)[:, None] < steps // 2, before, after)
    return (rng.random((steps, streams)) < rates).astype(float)


def reals(steps: int, streams: int) -> np.ndarray:
    """Normal, a step, constant, ±1e15, an offset of 1e15, and bits, in turn."""
    rng = np.random.default_rng(12)
    late = (np.arange(steps) >= steps // 2).astype(float)
    kinds: list[Callable[[], Any]] = [
        lambda: rng.normal(0, 1, steps),
        lambda: rng.normal(late * 3, 1),
        lambda: np.full(steps, rng.normal()),
        lambda: rng.choice([-1e15, 1e15], steps),
        lambda: 1e15 + rng.normal(late * 2, 1),
        lambda: rng.random(steps) < 0.05 + 0.4 * late,
    ]
    return np.column_stack([kinds[k % len(kinds)]() for k in range(streams)]).astype(float)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_every_alarm_and_the_state_equal_river_on_bits(name: str) -> None:
    x = bits(STEPS.get(name, 700), 56)
    agree(name, x)
    assert agree(name, x, **TWINS[name][2]) > 10


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(BINARY)))
def test_every_alarm_and_the_state_equal_river_on_reals(name: str) -> None:
    x = reals(STEPS.get(name, 700), 54)
    assert agree(name, x) > 10
    assert agree(name, x, **TWINS[name][2]) > 10


@pytest.mark.parametrize(("clock", "max_buckets", "least"), [(1, 5, 5), (6, 2, 1), (64, 4, 3)])
def test_adwin_equals_river_whatever_its_clock_and_buckets(clock: int, max_buckets: int, least: int) -> None:
    parameters = {"delta": 0.3, "clock": clock, "max_buckets": max_buckets, "min_window_length": least}
    assert agree("adwin", reals(400, 24), **parameters, grace_period=2) > 10


@pytest.mark.parametrize(("clock", "least", "grace"), [(1, 1, 7), (1, 5, 1), (2, 1, 8), (2, 5, 1), (4, 3, 8)])
def test_adwin_equals_river_in_windows_just_long_enough(clock: int, least: int, grace: int) -> None:
    x = 100.0 * (np.arange(48)[:, None] >= np.arange(1, 25)) + np.random.default_rng(14).normal(0, 0.1, (48, 24))
    parameters = {"delta": 0.9, "clock": clock, "min_window_length": least, "grace_period": grace}
    assert agree("adwin", x, **parameters) > 10


def test_adwin_equals_river_where_the_shortest_window_alone_shows_it() -> None:
    x = np.linspace(0, 4, 400) * (np.arange(64)[:, None] >= 60) + np.random.default_rng(15).normal(0, 0.01, (64, 400))
    assert agree("adwin", x, delta=0.3, min_window_length=4) > 10


def test_adwin_has_the_buckets_of_river() -> None:
    x = reals(900, 54)
    rivers = [ADWIN() for _ in range(54)]
    state = adwin.start(adwin.ADWIN(), 54)
    for t, row in enumerate(x):
        state, drift = adwin.step(adwin.ADWIN(), state, row)
        for detector, value in zip(rivers, row.tolist(), strict=True):
            detector.update(value)
        for k in np.flatnonzero(~drift) if t % 31 == 0 else ():  # an alarm's buckets are wiped, not cut
            for i, ours in enumerate(_rows(state.window, k)):
                theirs = _row_of(rivers[k], i)[:, : len(ours)]
                assert np.array(ours).reshape(-1, 2).T.tobytes() == theirs.tobytes(), f"stream {k}, row {i} at {t}"


def _rows(window: Any, k: int) -> list[list[tuple[float, float]]]:
    newer, rows = 0, []
    for i, row in enumerate(window.recent):
        there = min(len(row), max(0, int(window.width[k]) - newer) >> i)  # the others are empty
        rows.append([(b.total[k], b.variance[k]) for b in row[len(row) - there :]])
        newer += len(row) << i
    return rows + [[(b.total[k], b.variance[k]) for b in row.buckets[: int(row.filled[k])]] for row in window.old]


def _row_of(detector: Any, i: int) -> np.ndarray:
    """Sums and variances of six buckets of row i, from the bytes of the compiled core."""
    raw, at = bytes(detector._helper.__getstate__()), 116 + 128 * i
    if at + 104 > len(raw):
        return np.zeros((2, 0))
    return np.array([np.frombuffer(raw, "<f8", 6, at), np.frombuffer(raw, "<f8", 6, at + 56)])


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=25, deadline=None)
@given(runs=st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 40)), min_size=1, max_size=12))
def test_runs_of_bits_equal_river(name: str, runs: list[tuple[float, int]]) -> None:
    agree(name, np.concatenate([np.full(n, x) for x, n in runs])[:, None], **TWINS[name][2])


@pytest.mark.parametrize("name", sorted(set(TWINS) - set(BINARY)))
@settings(max_examples=25, deadline=None)
@given(x=st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=120))
def test_any_floats_equal_river(name: str, x: list[float]) -> None:
    agree(name, np.array(x)[:, None], **TWINS[name][2])


@pytest.mark.statistical
@pytest.mark.parametrize("name", sorted(set(TWINS) - set(STEPS)))
def test_long_streams_equal_river(name: str) -> None:
    agree(name, bits(2_500, 64))
    if name not in BINARY:
        agree(name, reals(2_500, 60))


def test_every_detector_of_river_is_compared() -> None:
    assert set(TWINS) | {"cusum", "ewma", "fet"} == set(DETECTORS)


def _cusum(xs: list[float]) -> list[bool]:
    seen: list[float] = []
    alarms, rise, fall = [], 0.0, 0.0
    for x in xs:
        drift = False
        if len(seen) < 30:
            seen.append(x)
        else:
            mu, sigma = float(np.mean(seen)), float(np.std(seen, ddof=1))
            rise, fall = max(0.0, rise + x - mu - 0.5 * sigma), max(0.0, fall - (x - mu) - 0.5 * sigma)
            drift = max(rise, fall) > 5 * sigma
        if drift:
            seen, rise, fall = [], 0.0, 0.0
        alarms.append(drift)
    return alarms


def _ewma(xs: list[float]) -> list[bool]:
    seen: list[float] = []
    alarms = []
    for x in xs:
        seen.append(x)
        n = len(seen)
        weights = np.array([0.9 ** (n - 1)] + [0.1 * 0.9 ** (n - 1 - i) for i in range(1, n)])
        z = float(weights @ seen)
        variance = float(weights @ np.square(np.array(seen) - z))
        limit = 4 * np.sqrt(variance * 0.1 / 1.9 * (1 - 0.9 ** (2 * n)))
        drift = n >= 30 and abs(z - float(np.mean(seen))) > limit
        if drift:
            seen = []
        alarms.append(bool(drift))
    return alarms


@cache
def _least_p(s0: int, s: int) -> float:
    table = [[s, 50 - s], [s0, 100 - s0]]
    return float(min(fisher_exact(table, alternative=a).pvalue for a in ("less", "greater")))


def _fet(xs: list[float]) -> list[bool]:
    seen: list[float] = []
    alarms = []
    for x in xs:
        seen.append(x)
        drift = False
        if len(seen) >= 150:
            s0, s = int(sum(seen[:100])), int(sum(seen[-50:]))
            drift = _least_p(s0, s) <= 0.00005
        if drift:
            seen = []
        alarms.append(drift)
    return alarms


@pytest.mark.parametrize(("name", "twin"), [("cusum", _cusum), ("ewma", _ewma), ("fet", _fet)])
def test_what_river_lacks_equals_a_slow_twin(name: str, twin: Callable[[list[float]], list[bool]]) -> None:
    rng = np.random.default_rng(13)
    x = rng.normal(np.where(np.arange(500)[:, None] < 300, 0.0, np.linspace(-4, 4, 50)), 1.0)
    if DETECTORS[name].binary:
        x = (x > 0).astype(float)
    config = DETECTORS[name].config()
    state, alarms = DETECTORS[name].start(config, 50), []
    for row in x:
        state, drift = DETECTORS[name].step(config, state, row)
        alarms.append(drift)
    expected = np.column_stack([twin(column.tolist()) for column in x.T])
    np.testing.assert_array_equal(np.array(alarms), expected)
    assert expected.sum() > 20


def test_a_field_of_the_state_is_compared_or_is_the_alarm() -> None:
    for name, (theirs, values_of, _) in TWINS.items():
        fields = {f.name for f in dataclasses.fields(DETECTORS[name].start(DETECTORS[name].config(), 1))}
        assert fields - {f.split(".")[0] for f in values_of(theirs())} <= {"drift", "window", "tick", "draws"}
