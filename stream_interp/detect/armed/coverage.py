"""What the rate tests of features can see, and how soon: Wald's approximation of the delay."""

from __future__ import annotations

import numpy as np

from stream_interp.detect.armed.features import FeatureTests
from stream_interp.drift import esr
from stream_interp.drift.esr import Floats
from stream_interp.settings import DriftSettings

_RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 64.0)


def detectable_ratio(
    rate: Floats, up: FeatureTests, down: FeatureTests, a_weeks: float, settings: DriftSettings
) -> Floats:
    """[d_sae] smallest ratio whose expected log evidence in sla_requests reaches the threshold; inf where none does."""
    needed = _evidence_needed(a_weeks, settings) / settings.sla_requests
    best = np.full(len(rate), np.inf)
    for ratio in _RATIOS:
        for tests in (up, down):
            seen = tests.armed & (_gain(tests, rate, ratio) >= needed)
            best = np.where(seen & (best > ratio), ratio, best)
    return best


def expected_delay(tests: FeatureTests, rate: Floats, ratio: float, a_weeks: float, settings: DriftSettings) -> Floats:
    """[d_sae] requests until a change of a feature's rate is seen; inf where it never is.

    Args:
        tests: of rates, up: the rate is multiplied by `ratio`; down: divided.
        rate: [d_sae] of the baseline.
        ratio: > 1.
        a_weeks: the tests' threshold.
        settings: those that the tests were built with.
    """
    gain, needed = _gain(tests, rate, ratio), _evidence_needed(a_weeks, settings)
    delay: Floats = np.where(tests.armed & (gain > 0), needed / np.where(gain > 0, gain, 1.0), np.inf)
    return delay


def _evidence_needed(a_weeks: float, settings: DriftSettings) -> float:
    """Log evidence from one request's weight to A with one component of the mixture."""
    return float(np.log(len(esr.ODDS_RATIOS) * a_weeks * settings.requests_per_week))


def _gain(tests: FeatureTests, rate: Floats, ratio: float) -> Floats:
    """[d_sae] expected log evidence a request of the best component, once the rate is `ratio` times more, or less."""
    direction = tests.kind.direction
    now = np.minimum(rate * ratio, 1.0) if direction == "up" else rate / ratio
    p = np.where(tests.armed, tests.p, 0.5).astype(np.float64)
    gain: Floats = np.multiply.outer(esr.log_odds(direction), now) - esr.log_normaliser(p, direction)
    best: Floats = gain.max(axis=0)
    return best
