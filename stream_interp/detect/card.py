"""What a baseline says of itself: what it can see, and what it cannot."""

from __future__ import annotations

import numpy as np

from stream_interp.detect import armed
from stream_interp.detect.armed.features import MIN_FIRINGS
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, Sight
from stream_interp.settings import DriftSettings

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def sight_of(header: BaselineHeader, arrays: Arrays, drift: DriftSettings) -> Sight | None:
    """By the tests that are armed with it; None without an SAE."""
    if not len(arrays["requests_fired"]):
        return None
    tests = armed.build(header, arrays, drift)
    ratios = np.quantile(tests.detectable_ratio, QUANTILES, method="inverted_cdf").tolist()
    return Sight(
        features_armed=tests.features_armed, features_rare=len(rare_features(arrays)),
        features_not_covered=tests.features_not_covered, sla_requests=drift.sla_requests,
        detectable_ratio={f"{q:g}": r if np.isfinite(r) else None for q, r in zip(QUANTILES, ratios, strict=True)},
    )  # fmt: skip


def rare_features(arrays: Arrays) -> list[int]:
    """Those that fired in too few requests to be tested for more than firing more often."""
    return np.flatnonzero(arrays["requests_fired"] < MIN_FIRINGS).tolist()
