"""Requests drawn, mixed and multiplied; alarms as `step` gives them; outcomes, and the dummies beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_interp import offline
from stream_interp.capture.files import read_activation_file
from stream_interp.detect.armed import features
from stream_interp.detect.armed.coverage import expected_delay
from stream_interp.encode.requests import shape_of
from stream_interp.evaluation import planted
from stream_interp.evaluation.alarms import Detector, alarms
from stream_interp.evaluation.quantiles import quantiles
from stream_interp.evaluation.requests import Requests, mixed, multiplied, requests_from
from stream_interp.records.control import read_projector
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE, SAE
from tests.detect.test_offline import write
from tests.evaluation.test_null import RATES, simulated

DRIFT = DriftSettings(clock="requests")


def learn(folder: Path) -> offline.Learnt:
    return offline.learn(write(folder / "base", [12] * 600), LANE, SAE, DRIFT, version=1_000)


def features_of(requests: Requests, k: int) -> list[int]:
    return requests.feature[requests.bounds[k] : requests.bounds[k + 1]].tolist()


def test_requests_taken_are_those_requests() -> None:
    requests = simulated(30, seed=1)
    index = np.array([7, 7, 0, 29])
    taken = requests.take(index) + requests.take(np.array([3]))
    for k, original in enumerate([*index, 3]):
        assert features_of(taken, k) == features_of(requests, original)
        assert (taken.scores[k] == requests.scores[original]).all()


@pytest.mark.parametrize("ratio", [0.25, 1.0, 1.5, 4.0])
def test_rates_are_multiplied_and_others_are_left(ratio: float) -> None:
    requests, features = simulated(20_000, seed=2), np.array([3, 10, 23])
    drifted = multiplied(requests, features, requests.rate(features), ratio, np.random.default_rng(3))
    wanted = np.minimum(RATES[features] * ratio, 1.0)
    assert drifted.rate(features) == pytest.approx(wanted, rel=0.1)
    others = np.setdiff1d(np.arange(len(RATES)), features)
    assert (drifted.rate(others) == requests.rate(others)).all()
    assert all(len(set(features_of(drifted, k))) == len(features_of(drifted, k)) for k in range(100))


def test_a_mix_has_its_share_of_the_drift() -> None:
    null, drift = simulated(50, seed=4), simulated(60, seed=5)
    stream = mixed(null, drift, 0.2, 10_000, np.random.default_rng(6))
    share = np.isin(stream.scores[:, 0], drift.scores[:, 0]).mean()
    assert share == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("window", [1, 8])
def test_an_alarm_comes_where_a_replay_opens_an_incident(tmp_path: Path, window: int) -> None:
    learnt = learn(tmp_path)
    path = write(tmp_path / "drift", [12] * 64, shift=0.6, seed=2)
    run = offline.replay(path, learnt.state, shape_of(LANE, read_projector(learnt.projector)), SAE)
    requests = requests_from(offline.requests_of(read_activation_file(path), learnt, SAE))
    assert learnt.state.tests is not None
    first = next(alarms(Detector(learnt.state.tests, DRIFT.requests_per_week, window), requests))
    opened, alert = run.alerts[0]
    assert alert.transition == "opened"
    assert first.request >= opened
    assert first.request % window == 0
    assert window > 1 or (first.request == opened and first.groups == set(alert.groups))


def test_the_dummies_lose_where_the_detector_does_not(tmp_path: Path) -> None:
    learnt = learn(tmp_path)
    files = [write(tmp_path / f"{shift}", [12] * 100, shift=shift, seed=3) for shift in (0.0, 1.0)]
    null, drift = (requests_from(offline.requests_of(read_activation_file(f), learnt, SAE)) for f in files)
    assert learnt.state.tests is not None
    detector = Detector(learnt.state.tests, 100_000.0, window=8)
    plant = planted.mixing(null, drift, 1.0)
    ours, never, always = planted.evaluate(detector, null, plant, draws=20, before=50, horizon=100, seed=1)
    assert [s.missed_share for s in (ours, never, always)] == [0.0, 1.0, 0.0]
    assert [s.false_alarms for s in (ours, never, always)] == [0, 0, 20 * 56]  # whole windows of 8
    assert never.delays["best"] is None
    assert set(always.delays.values()) == {1.0}
    assert (ours.delays["worst"] or np.inf) <= 100
    assert planted.evaluate(detector, null, plant, 20, 50, 100, seed=1)[0] == ours


def test_a_covered_feature_is_expected_to_be_seen_in_time(tmp_path: Path) -> None:
    state = learn(tmp_path).state
    assert state.tests is not None
    assert state.baseline is not None
    said, rate = state.tests.detectable_ratio, np.maximum(state.tests.rate_baseline, 0.5 / state.tests.unit.requests)
    for ratio in np.unique(said[np.isfinite(said)]):
        tests = [state.tests.unit.features[str(kind)] for kind in features.RATES]
        delays = [expected_delay(of, rate, float(ratio), state.tests.a_weeks("features"), DRIFT) for of in tests]
        in_time = np.minimum(*delays) <= DRIFT.sla_requests
        assert in_time[said <= ratio].all()
        assert not in_time[said > ratio].any()


def test_an_outcome_counts_from_the_change() -> None:
    assert planted.outcome_of([10, 50, 51, 60], change=50) == (1, 2)
    assert planted.outcome_of([10], change=50) == (None, 1)


def test_quantiles_are_values_that_occur_or_never() -> None:
    assert list(quantiles([3.0, 1.0, np.inf, 2.0, np.inf]).values()) == [1.0, 2.0, 3.0, None, None]
    assert set(quantiles([]).values()) == {None}
