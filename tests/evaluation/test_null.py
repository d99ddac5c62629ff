"""The promise measured: on simulated requests without drift the alarms stay within the budget's Poisson bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import armed
from stream_interp.evaluation.alarms import Detector
from stream_interp.evaluation.null import NullReplay, poisson_interval, replay_null
from stream_interp.evaluation.requests import Requests
from stream_interp.records.control import BaselineHeader
from stream_interp.settings import DriftSettings
from tests.detect.lanes import LANE

RATES = np.geomspace(0.01, 0.5, 24)
SETTINGS = DriftSettings(clock="requests", requests_per_week=500.0, tolerance=1.0)  # the null without a margin
BASELINE = 200_000  # so that its intervals have next to none either


def simulated(n: int, seed: int, scores: int = 6) -> Requests:
    """Independent requests of RATES and of standard normal scores."""
    rng = np.random.default_rng(seed)
    request, feature = np.nonzero(rng.random((n, len(RATES))) < RATES)
    bounds = np.searchsorted(request, np.arange(n + 1))
    magnitude, normal = rng.uniform(0.2, 0.6, len(feature)), rng.standard_normal((n, scores))
    return Requests(bounds, feature, magnitude, normal.astype(np.float32))


def detector() -> Detector:
    header = BaselineHeader(
        lane=LANE, version=1, projector_version=1, requests=BASELINE, fit_requests=1, tokens=1, too_short=0,
        provisional=False, explained_variance=None, l0=None, norm=1.0, massive_share=0.0,
    )  # fmt: skip
    arrays = {
        "requests_fired": np.round(RATES * BASELINE).astype(np.int64),
        "mag_sum": RATES * BASELINE * 0.4,
        "calibration_scores": simulated(2_000, seed=1).scores,
    }
    return Detector(armed.build(header, arrays, SETTINGS), SETTINGS.requests_per_week, window=4)


def measured(of: Detector) -> NullReplay:
    return replay_null(of, simulated(20_000, seed=2), draws=20, requests=1_000, seed=3, false_alarms_per_week=1.0)


@pytest.mark.statistical
def test_the_budget_holds_on_a_null() -> None:
    replay = measured(detector())
    assert replay.nominal == 40
    assert replay.verdict == "within"


@pytest.mark.statistical
def test_thresholds_that_are_too_low_are_found_out() -> None:
    """Negative control: the same check fails a detector that does not keep the promise."""
    sound = detector()
    low = {group: a / 100 for group, a in sound.tests.thresholds.items()}
    replay = measured(replace(sound, tests=replace(sound.tests, thresholds=low)))
    assert replay.verdict == "exceeded"
    assert "features" in replay.by_group


def test_a_seed_gives_the_same_draws() -> None:
    sound, null = detector(), simulated(500, seed=4)
    low = replace(sound, tests=replace(sound.tests, thresholds=dict.fromkeys(sound.tests.thresholds, 0.01)))
    first, again, other = (replay_null(low, null, 3, 400, seed, 1.0) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39)])
def test_the_poisson_interval_is_garwoods(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), rel=1e-3)


@pytest.mark.parametrize(("alarms", "verdict"), [(0, "within"), (3, "within"), (8, "undecided"), (20, "exceeded")])
def test_the_verdict_is_of_the_whole_interval(alarms: int, verdict: str) -> None:
    assert NullReplay(nominal=9.0, by_draw=[alarms, 0], by_group={}).verdict == verdict
