"""Where a change is: the test that opened an incident, by input partition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import witness
from stream_interp.detect.witness import Witness
from stream_interp.drift.after_alarm import Counted, rate_interval
from stream_interp.records.window import CutRef
from tests.detect.lanes import Driver, requests

RUNS, VALUES = 2_000, 300
ONE_IN = 20


@pytest.mark.statistical
@pytest.mark.parametrize("concentration", [0.1, 2.0])
def test_the_interval_of_a_mean_holds_at_all_times_together(concentration: float) -> None:
    """Values in [0, 1] that are no indicators, at a level low enough to be seen to fail: 3 standard errors above it."""
    rng, mean = np.random.default_rng(1), 0.2
    values = rng.beta(concentration * mean, concentration * (1 - mean), (RUNS, VALUES))
    missed = np.zeros(RUNS, bool)
    for n in range(1, VALUES + 1):
        low, high = rate_interval(Counted(np.full(RUNS, float(n)), values[:, :n].sum(axis=1)), 1 / ONE_IN)
        missed |= (low > mean) | (high < mean)
    assert missed.mean() <= 1 / ONE_IN + 3 * (1 / ONE_IN / RUNS) ** 0.5
    low, high = rate_interval(Counted(np.full(RUNS, float(VALUES)), values.sum(axis=1)), 1 / ONE_IN)
    assert np.mean(high - low) < 0.2  # and it is no empty promise


@pytest.fixture(scope="module")
def lane() -> Driver:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    return driver


def seen(tests_kind: str, n: list[float], x: list[float], windows: int = witness.MIN_WINDOWS) -> Witness:
    partitions = np.arange(len(n))
    return Witness("unit", tests_kind, 3, 0, partitions, np.full(len(n), windows), np.array(n), np.array(x))


@pytest.mark.parametrize(
    ("x", "changed", "others"),
    [
        ([0, 1, 60, 0], [2], [0, 1, 3]),
        ([60, 1, 60, 0], [0, 2], [1, 3]),
        ([60, 60, 60, 60], [0, 1, 2, 3], []),
        ([0, 1, 0, 1], [], []),
    ],
)
def test_which_partitions_have_it(lane: Driver, x: list[float], changed: list[int], others: list[int]) -> None:
    assert lane.state.tests is not None
    found = witness.spread(replace(seen("scores", [64.0] * 4, x), index=2), lane.state.tests)
    assert (found.changed.tolist(), found.others.tolist()) == (changed, others)
    assert found.is_partial == bool(changed and others)


def test_a_partition_in_between_leaves_it_open(lane: Driver) -> None:
    assert lane.state.tests is not None
    found = witness.spread(replace(seen("scores", [64.0] * 3, [60, 1, 20]), index=2), lane.state.tests)
    assert 2 in found.changed
    found = witness.spread(replace(seen("scores", [64.0, 64.0, 8.0], [40, 1, 2]), index=2), lane.state.tests)
    assert found.undecided.tolist() == [2]
    assert not found.is_partial


def test_few_windows_decide_nothing_however_many_requests(lane: Driver) -> None:
    assert lane.state.tests is not None
    few = seen("scores", [640.0] * 2, [600, 1], windows=witness.MIN_WINDOWS - 1)
    assert not witness.spread(replace(few, index=2), lane.state.tests).is_partial


def test_a_feature_that_fires_less_is_told_by_where_it_still_fires(lane: Driver) -> None:
    tests = lane.state.tests
    assert tests is not None
    feature = int(np.argmax(np.where(tests.unit.features["rate down"].armed, tests.rate_baseline, 0)))
    silent = replace(seen("rate down", [200.0] * 3, [0, 190, 195]), index=feature)
    found = witness.spread(silent, tests)
    assert (found.changed.tolist(), found.others.tolist()) == ([0], [1, 2])
    assert "firing rate of feature" in str(silent)


@pytest.mark.parametrize("kind", ["scores", "rate up", "magnitude up", "magnitude_when_fired down"])
def test_windows_are_counted_from_the_second_of_each_partition_on(lane: Driver, kind: str) -> None:
    """Fast sums against a slow twin, window by window; the first one may hold requests of before the opening."""
    driver = Driver()
    driver.state, driver.shape, driver.offset = lane.state, lane.shape, lane.offset
    rng, tests = np.random.default_rng(2), lane.state.tests
    assert tests is not None
    for _ in range(20):
        cut = CutRef(topic="t", partition=int(rng.integers(3)), a=driver.offset, b=driver.offset + 8)
        driver.feed(requests(rng, 8, shift=0.5), cut=cut)
    own = witness.begun("unit", kind, 2, 1, driver.windows[0])
    for window in driver.windows[1:]:
        own = witness.fed(own, tests, window)
    opened, first = driver.windows[0].header.cut.partition, set[int]()
    n, x = np.zeros(3), np.zeros(3)
    for window in driver.windows[1:]:
        k, arrays = window.header.cut.partition, window.arrays
        if k != opened and k not in first:
            first.add(k)
            continue
        at = np.flatnonzero(arrays["feature_ids"] == 2)
        fired, mag = (float(arrays[name][at].sum()) for name in ("requests_fired", "mag_sum"))
        over = sum(
            float(score[tests.unit.scores.column[2]] * tests.unit.scores.sign[2] > tests.unit.scores.thresholds[2, 1])
            for score in arrays["request_scores"]
        )
        n[k] += fired if kind.startswith("magnitude_when") else 8
        x[k] += {"scores": over, "rate up": fired}.get(kind, mag)
    np.testing.assert_allclose(own.n, n[own.partition])
    np.testing.assert_allclose(own.x, x[own.partition])
    assert x.sum() > 0
    assert set(own.partition) == {0, 1, 2}
