"""What every classical detector holds to; a new registry line is tested here without a word."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from stream_interp.drift.classical import DETECTORS, Detector, adwin, eddm, kswin
from stream_interp.errors import BlindError, UsageError

STREAMS, STEPS = 7, 240


def arrays(value: Any) -> list[np.ndarray]:
    """All arrays of a state, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    if dataclasses.is_dataclass(value):
        return [a for f in dataclasses.fields(value) for a in arrays(getattr(value, f.name))]
    if isinstance(value, tuple) and not (value and isinstance(value[0], int)):  # not where a random generator stands
        return [a for v in value for a in arrays(v)]
    return []


def shifting(detector: Detector) -> np.ndarray:
    """[STEPS, STREAMS]: half way up by much in the first streams, down in the others."""
    rng = np.random.default_rng(3)
    up = (np.arange(STEPS)[:, None] >= STEPS // 2) == (np.arange(STREAMS) < 4)
    return (rng.random(up.shape) < np.where(up, 0.9, 0.05) if detector.binary else rng.normal(up * 60.0)).astype(float)


def run(detector: Detector, x: np.ndarray) -> tuple[Any, np.ndarray]:
    state, alarms = detector.start(detector.config(), x.shape[1]), []
    for row in x:
        state, drift = detector.step(detector.config(), state, row)
        alarms.append(drift)
    return state, np.array(alarms)


@pytest.fixture(params=sorted(DETECTORS))
def detector(request: pytest.FixtureRequest) -> Detector:
    return DETECTORS[request.param]


def test_it_alarms_after_a_large_shift(detector: Detector) -> None:
    _, alarms = run(detector, shifting(detector))
    assert alarms.shape == (STEPS, STREAMS)
    assert alarms.dtype == np.bool_
    assert alarms[STEPS // 2 :].any()


def test_one_stream_among_many_equals_the_stream_alone(detector: Detector) -> None:
    x = shifting(detector)
    together, alarms = run(detector, x)
    for k in (0, STREAMS - 1):
        alone, its_alarms = run(detector, x[:, [k]])
        np.testing.assert_array_equal(its_alarms[:, 0], alarms[:, k])
        for one, many in zip(arrays(alone), arrays(together), strict=True):
            assert one[..., 0].tobytes() == np.ascontiguousarray(many[..., k]).tobytes()


def test_a_step_leaves_its_state_and_its_input_as_they_were(detector: Detector) -> None:
    x = shifting(detector)
    state, config = detector.start(detector.config(), STREAMS), detector.config()
    for row in x:
        before, given = [a.copy() for a in arrays(state)], row.copy()
        new, drift = detector.step(config, state, row)
        again, _ = detector.step(config, state, row)
        for was, now in zip(before, arrays(state), strict=True):
            np.testing.assert_array_equal(was, now)
        for one, other in zip(arrays(new), arrays(again), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(row, given)
        row[:] = 1.0  # nor may the new state look at what was the caller's
        np.testing.assert_array_equal(drift, new.drift)
        for one, other in zip(arrays(new), arrays(again), strict=True):
            np.testing.assert_array_equal(one, other)
        state = new


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_raises_and_names_the_first_stream(detector: Detector, bad: float) -> None:
    state = detector.start(detector.config(), STREAMS)
    with pytest.raises(BlindError, match="stream 2: found"):
        detector.step(detector.config(), state, [0, 1, bad, 0, bad, 1, 0])


def test_another_number_of_streams_raises(detector: Detector) -> None:
    with pytest.raises(UsageError, match="shape"):
        detector.step(detector.config(), detector.start(detector.config(), STREAMS), np.zeros(STREAMS + 1))


def test_a_binary_detector_refuses_other_values(detector: Detector) -> None:
    x, state = [0, 1, 0.5, 0, 0, 0, 0], detector.start(detector.config(), STREAMS)
    if detector.binary:
        with pytest.raises(UsageError, match=r"stream 2: found 0\.5, expected 0 or 1"):
            detector.step(detector.config(), state, x)
    else:
        detector.step(detector.config(), state, x)


def test_the_config_and_the_state_are_frozen(detector: Detector) -> None:
    for thing in (detector.config(), detector.start(detector.config(), 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, dataclasses.fields(thing)[0].name, 1)


def test_eddm_takes_the_root_as_river_does() -> None:
    variance = np.random.default_rng(0).exponential(1e3, 20_000)
    ours = eddm._roots(variance, variance > 0)
    assert ours.tolist() == [v**0.5 for v in variance.tolist()]
    assert (ours != np.sqrt(variance)).any()  # else Python's loop could go


def test_kswin_refuses_more_streams_than_it_can_keep_up_with() -> None:
    kswin.start(kswin.KSWIN(), 100)
    with pytest.raises(UsageError, match="101 streams, expected at most 100"):
        kswin.start(kswin.KSWIN(), 101)


def test_adwin_refuses_what_would_break_its_rows() -> None:
    with pytest.raises(UsageError, match="max_buckets of 2 or more"):
        adwin.ADWIN(max_buckets=1)
