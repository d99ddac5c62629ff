"""The card of a baseline says what it was counted from and what its tests can see."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect import armed
from stream_interp.detect.card import sight_of
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.drift.stationarity import MARKED
from stream_interp.records.control import BaselineHeader, read_baseline
from stream_interp.records.window import FIT
from tests.detect.lanes import SETTINGS, Driver, requests


@pytest.fixture(scope="module")
def learnt() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    return driver


def header_of(driver: Driver) -> BaselineHeader:
    [record] = [c for r in driver.results for c in r.controls if c.manifest.kind == "baseline"]
    return read_baseline(record)[0]


def test_it_names_its_windows_and_the_code(learnt: Driver) -> None:
    header = header_of(learnt)
    calibrated = [w.header for w in learnt.windows if w.header.projector_version != FIT]
    assert header.first_closed_at_ms == calibrated[0].closed_at_ms
    assert header.last_closed_at_ms == calibrated[-1].closed_at_ms
    assert (header.first_offset, header.last_offset) == (calibrated[0].cut.b - 1, calibrated[-1].cut.b - 1)
    assert header.code_version == version("stream-interp")
    assert header.unit_tokens == learnt.shape.unit_tokens > 0
    assert header.stationary_p is not None
    assert MARKED < header.stationary_p <= 1


def test_what_it_sees_is_what_its_tests_see(learnt: Driver) -> None:
    baseline, tests = learnt.state.baseline, learnt.state.tests
    assert baseline is not None
    assert tests is not None
    sight = baseline.header.sight
    assert sight is not None
    assert (sight.features_armed, sight.features_not_covered) == (tests.features_armed, tests.features_not_covered)
    assert sight.features_rare == (baseline.arrays["requests_fired"] < 10).sum()
    ratios = np.sort(tests.detectable_ratio)
    assert sight.detectable_ratio["0.5"] == ratios[int(np.ceil(len(ratios) / 2)) - 1]
    few = {**baseline.arrays, "requests_fired": np.minimum(baseline.arrays["requests_fired"], 3)}
    blind = sight_of(baseline.header, few, SETTINGS.drift)
    assert blind is not None
    assert blind.features_rare == len(few["requests_fired"])
    assert blind.detectable_ratio["0.9"] is None or blind.detectable_ratio["0.9"] > 5
    none = {**baseline.arrays, "requests_fired": np.zeros(0, np.int64), "mag_sum": np.zeros(0)}
    assert sight_of(baseline.header, none, SETTINGS.drift) is None


def test_tests_do_not_depend_on_the_card(learnt: Driver) -> None:
    baseline = learnt.state.baseline
    assert baseline is not None
    bare = structs.replace(baseline.header, sight=None, stationary_p=None, code_version="")
    one, other = (armed.build(h, baseline.arrays, SETTINGS.drift) for h in (baseline.header, bare))
    assert one.thresholds == other.thresholds
    np.testing.assert_array_equal(one.detectable_ratio, other.detectable_ratio)


def test_a_restart_in_the_middle_of_learning_gives_the_same_card() -> None:
    rng, driver = np.random.default_rng(1), Driver()
    driver.feed(requests(rng, 120))
    driver.feed(requests(rng, 240))
    driver.state = load_state(dump_state(driver.state))
    driver.feed(requests(rng, 240))
    expected = Driver()
    rng = np.random.default_rng(1)
    expected.feed(requests(rng, 120))
    expected.feed(requests(rng, 240))
    expected.feed(requests(rng, 240))
    assert header_of(driver) == header_of(expected)


def test_of_what_a_version_before_learned_there_is_no_first_window() -> None:
    """It kept neither times nor partitions: the card is silent, and the order of the requests is tested anyway."""
    rng, driver = np.random.default_rng(2), Driver()
    driver.feed(requests(rng, 120))
    driver.feed(requests(rng, 240))
    assert driver.state.learned is not None
    before = {"partitions": (), "first_ms": 0, "first_offset": -1}
    driver.state = replace(driver.state, learned=replace(driver.state.learned, **before))
    driver.feed(requests(rng, 240))
    header = header_of(driver)
    assert (header.first_closed_at_ms, header.first_offset) == (0, -1)
    assert header.stationary_p is not None
