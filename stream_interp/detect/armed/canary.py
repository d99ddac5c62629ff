"""Self-test: made-up features and a made-up score with a planted shift, through the same code as the lane's own.

Every QUIET_REQUESTS requests of an armed lane the shift is planted, outside the budget, on the lane's own clock and
against its own thresholds. A canary that has not alarmed in every test within WITHIN_REQUESTS says that real drift
would not alarm either: the lane is `integrity_error`. Nothing is drawn: the counts are those of the shifted rates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from msgspec import structs

from stream_interp.detect.armed import StratumEvidence, StratumTests, Tests, features, scores, stratum_tests
from stream_interp.detect.armed.features import KINDS, Seen
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.drift.intervals import DELTA
from stream_interp.records.arrays import Arrays
from stream_interp.records.window import SCORES
from stream_interp.settings import DriftSettings

QUIET_REQUESTS = 8_192
WITHIN_REQUESTS = 1_024  # detection takes some 60 to 200, at a threshold of a year for each of a million features

BASELINE_REQUESTS = 10_000
_SCORE = 0  # so that a canary does not depend on how many scores there are: a checkpoint may hold one under way
_SCORE_ROWS = tuple(k for k, t in enumerate(SCORE_TESTS) if t.score == SCORES[_SCORE] and t.direction == "up")

# One feature each that fires more often and stronger, that fires no more, and that fires as ever but faintly.
_RATE, _STRENGTH = np.array([0.1, 0.5, 0.5]), np.array([0.1, 0.5, 0.9])
_SHIFTED_RATE, _SHIFTED_STRENGTH = np.array([0.7, 0.0, 0.5]), np.array([0.9, 0.5, 0.05])
_SHOWS = dict(zip(KINDS, (0, 1, 0, 1, 0, 2), strict=True))  # the feature in which a test of each kind sees it


@dataclass(frozen=True)
class Canary:
    """Where the self-test of a lane stands.

    Attributes:
        since: requests since the shift was planted, or since the last one was seen.
        evidence: of the planted shift; None while all is quiet.
        waiting: names of the tests that have yet to alarm.
        deaf: they should have by now.
    """

    since: int = 0
    evidence: StratumEvidence | None = None
    waiting: tuple[str, ...] = ()
    deaf: bool = False


@lru_cache(maxsize=16)
def canary_tests(drift: DriftSettings, with_magnitudes: bool) -> StratumTests:
    """Of the kinds that the lane has, against a made-up baseline. A planted shift is beyond any tolerance up to 2."""
    fired = (_RATE * BASELINE_REQUESTS).astype(np.int64)
    calibration = np.linspace(0, 1, BASELINE_REQUESTS, dtype=np.float32)[:, None]  # of the first score alone
    arrays: Arrays = {"requests_fired": fired, "calibration_scores": calibration}
    if with_magnitudes:
        arrays["mag_sum"] = fired * _STRENGTH
    drift = structs.replace(drift, tolerance=min(drift.tolerance, 2.0), sla_requests=max(drift.sla_requests, 100))
    return stratum_tests(BASELINE_REQUESTS, arrays, DELTA, drift)


def tick(canary: Canary, lane: Tests, drift: DriftSettings, n: int, w: float) -> Canary:
    """One window of n requests and w weeks."""
    since = canary.since + n
    if canary.evidence is None and since < QUIET_REQUESTS:
        return replace(canary, since=since)
    own = canary_tests(drift, lane.unit.mag is not None)
    if canary.evidence is None:
        return _planted(own, lane)
    evidence, alarmed = _advance(canary, own, lane, n, w)
    waiting = tuple(name for name in canary.waiting if name not in alarmed)
    if not waiting:
        return Canary()
    return Canary(since, evidence, waiting, canary.deaf or since >= WITHIN_REQUESTS)


def _planted(own: StratumTests, lane: Tests) -> Canary:
    """With those tests to wait for that the lane has a threshold for."""
    of_features = [name for name, of in own.features.items() if np.isfinite(lane.a_weeks(of.kind.group))]
    of_scores = ["score"] if np.isfinite(lane.a_weeks("t0")) else []
    nothing = {name: features.initial(of) for name, of in own.features.items()}
    return Canary(0, StratumEvidence(nothing, scores.initial(own.scores)), (*of_features, *of_scores))


def _advance(canary: Canary, own: StratumTests, lane: Tests, n: int, w: float) -> tuple[StratumEvidence, set[str]]:
    assert canary.evidence is not None
    before, alarmed, after = canary.evidence, set[str](), {}
    done = np.floor(canary.since * _SHIFTED_RATE)
    fired = np.floor((canary.since + n) * _SHIFTED_RATE) - done
    ids = np.flatnonzero(fired)
    seen = Seen(n, ids, fired[ids], fired[ids] * _SHIFTED_STRENGTH[ids])
    for name, of in own.features.items():
        after[name], value = features.tick(of, before.features[name], seen, w)
        if value[_SHOWS[of.kind]] >= lane.a_weeks(of.kind.group):
            alarmed.add(name)
    rows = np.full((n, len(SCORES)), np.nan, np.float32)
    rows[:, _SCORE] = 2.0
    a_weeks = np.full(len(own.scores.column), lane.a_weeks("t0"))
    moved, peaks = scores.tick(own.scores, before.scores, rows, w, a_weeks)
    if peaks.first_over[list(_SCORE_ROWS)].any():
        alarmed.add("score")
    return StratumEvidence(after, moved), alarmed
