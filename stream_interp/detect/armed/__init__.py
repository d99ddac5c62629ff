"""The armed tests of a lane: what follows from its baseline and settings, and the evidence that moves.

A lane's requests are tested by stratum (`records.window`): its *unit*, the first tokens of each request, and what else
the baseline has enough of. All tests of all strata share one budget.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import coverage, features, means, scores, season, traffic
from stream_interp.detect.armed.features import KINDS, RATES, FeatureEvidence, FeatureTests, Kind, seen_in
from stream_interp.detect.armed.means import MeanTests
from stream_interp.detect.armed.scores import SCORE_TESTS, ScoreEvidence, ScorePeaks
from stream_interp.detect.armed.season import Season
from stream_interp.detect.armed.traffic import TrafficEvidence, TrafficTests
from stream_interp.drift import budget
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.exceedance import Exceedance
from stream_interp.drift.intervals import DELTA
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader
from stream_interp.records.window import SCORES, UNIT, Window, stratum_of, widened
from stream_interp.settings import DriftSettings

MOST_WEEKS = 1.0  # of a window: the first one after a long break must not be judged by the budget of the whole break


@dataclass(frozen=True)
class StratumTests:
    """The tests of one stratum.

    Attributes:
        requests: of the baseline.
        fired: [d_sae] int64, in how many of them each feature fired.
        mag: [d_sae] Σ of their capped maxima; None in a baseline of before there were magnitude tests.
        features: by the name of their kind.
        scores: the first K of SCORE_TESTS, K as the baseline has it.
        medians: of each score that there is.
    """

    requests: int
    fired: NDArray[np.int64]
    mag: Floats | None
    features: dict[str, FeatureTests]
    scores: Exceedance
    medians: dict[str, float]

    def level(self, kind: Kind) -> Floats:
        """[d_sae] what the baseline has of a measure."""
        if kind.measure == "rate" or self.mag is None:
            return self.fired / max(self.requests, 1)
        of = self.requests if kind.measure == "magnitude" else self.fired
        mean: Floats = self.mag / np.maximum(of, 1)
        return mean


@dataclass(frozen=True)
class Tests:
    """All tests of a lane; a pure function of (baseline, settings).

    Attributes:
        strata: by name, the unit first.
        means: of the unit's rate tests, by direction; none of a baseline of before there were such tests.
        season: of the features' rates; None: they are the same at all times.
        traffic: of lengths, positions and segments; they open no incident.
        thresholds: A in weeks, by group.
        detectable_ratio: [d_sae] float32 smallest rate ratio seen within `drift.sla_requests`, inf where none is.
    """

    strata: dict[str, StratumTests]
    means: dict[Direction, MeanTests]
    traffic: TrafficTests
    season: Season | None
    thresholds: dict[str, float]
    detectable_ratio: NDArray[np.float32]

    @property
    def unit(self) -> StratumTests:
        """Those of the requests' first tokens."""
        return self.strata[UNIT]

    @property
    def d_sae(self) -> int:
        """Width of the SAE; 0 where only T0 runs."""
        return len(self.unit.fired)

    @property
    def rate_baseline(self) -> Floats:
        """[d_sae] share of baseline requests in which each feature fired."""
        return self.unit.level(RATES[0])

    @property
    def features_armed(self) -> int:
        """Features with a rate test in at least one direction."""
        return int(np.any([self.unit.features[str(kind)].armed for kind in RATES], axis=0).sum())

    @property
    def features_not_covered(self) -> int:
        """Features of which no change of up to 64-fold would be seen within `drift.sla_requests`."""
        return int(np.isinf(self.detectable_ratio).sum())

    def factor(self, direction: Direction, at_ms: int | None) -> float:
        """Of the null rates at a time of the lane, Unix epoch ms; None: of no time."""
        return self.season.factor(direction, at_ms) if self.season is not None and at_ms is not None else 1.0

    def a_weeks(self, group: str) -> float:
        """A of each test of a group; inf where it has none."""
        return self.thresholds.get(group, np.inf)

    def lane_requests(self, stratum: str, requests: NDArray[np.int32]) -> Floats:
        """So many requests of a stratum as requests of the lane, by what the baseline had of both."""
        scaled: Floats = requests.astype(np.float64) * (self.unit.requests / max(self.strata[stratum].requests, 1))
        return scaled

    @cached_property
    def armed_by_group(self) -> Counter[str]:
        """Armed one-sided tests, by group."""
        return _armed(self.strata, self.means)

    def score_thresholds(self, stratum: str = UNIT) -> Floats:
        """A of each score test of a stratum, [K] weeks; inf where unarmed."""
        armed = self.strata[stratum].scores.armed
        return np.array(
            [self.a_weeks(t.group) if on else np.inf for t, on in zip(SCORE_TESTS, armed, strict=False)]  # the first K
        )


def build(baseline: BaselineHeader, arrays: Arrays, settings: DriftSettings) -> Tests:
    """Arms the tests. δ goes to the thresholds of the scores and the intervals of the features (`scores.allotment`).

    Of a baseline of before there were magnitude tests, nor are there means: its shares stay as they were frozen.
    """
    requests = {UNIT: baseline.requests, **baseline.strata}
    delta, deff = DELTA / len(requests), baseline.widened_by
    strata = {name: stratum_tests(n, _own(arrays, name), delta, settings, deff) for name, n in requests.items()}
    unit = strata[UNIT]
    of_means: dict[Direction, MeanTests] = {}
    if unit.mag is not None:
        rate = unit.fired / max(unit.requests, 1)
        of_means = {kind.direction: means.build(kind.direction, rate, unit.features[str(kind)].armed) for kind in RATES}
    a_weeks = budget.thresholds(_armed(strata, of_means), settings.false_alarms_per_week)
    up, down = (unit.features[str(kind)] for kind in RATES)
    rate = np.maximum(unit.fired, 0.5) / max(unit.requests, 1)
    ratio = coverage.detectable_ratio(rate, up, down, a_weeks.get("features", np.inf), settings)
    of_traffic, of_hours = traffic.build(baseline, arrays, settings), season.build(arrays, settings)
    return Tests(strata, of_means, of_traffic, of_hours, a_weeks, ratio.astype(np.float32))


def _own(arrays: Arrays, stratum: str) -> Arrays:
    """A stratum's arrays, by their own names."""
    prefix = "" if stratum == UNIT else f"{stratum}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def stratum_tests(n: int, arrays: Arrays, delta: float, settings: DriftSettings, deff: float = 1.0) -> StratumTests:
    """The tests of one stratum whose baseline has n requests; they may be wrong about it with probability delta.

    `deff`: n dependent requests tell of a rate what n / deff independent ones do.
    """
    fired = arrays["requests_fired"].astype(np.int64, copy=False)
    mag = arrays["mag_sum"].astype(np.float64, copy=False) if "mag_sum" in arrays else None
    calibration = arrays["calibration_scores"][:, : len(SCORES)].astype(np.float32, copy=False)
    kinds, of_scores = RATES if mag is None else KINDS, scores.allotment(calibration.shape[1]).of_scores
    alpha = delta * (1 - of_scores) / max(len(kinds) * len(fired), 1)
    of_kinds = {str(kind): features.build(kind, n, fired, mag, alpha, settings, deff) for kind in kinds}
    tests = scores.build(calibration, delta * of_scores, len(fired) > 0, deff)
    return StratumTests(n, fired, mag, of_kinds, tests, scores.medians(calibration))


def _armed(strata: dict[str, StratumTests], of_means: dict[Direction, MeanTests]) -> Counter[str]:
    armed = Counter[str]()
    for stratum in strata.values():
        for test, on in zip(SCORE_TESTS, stratum.scores.armed, strict=False):
            armed[test.group] += int(on)
        for tests in stratum.features.values():
            armed[tests.kind.group] += int(tests.armed.sum())
    armed["means"] = sum(map(len, of_means.values()))
    return armed


@dataclass(frozen=True)
class StratumEvidence:
    """What moves of one stratum.

    Attributes:
        features: by the name of their kind.
        waited: weeks since it last had a request, at most MOST_WEEKS.
    """

    features: dict[str, FeatureEvidence]
    scores: ScoreEvidence
    waited: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """Everything that moves while a lane is armed."""

    strata: dict[str, StratumEvidence]
    traffic: TrafficEvidence

    @property
    def unit(self) -> StratumEvidence:
        """That of the requests' first tokens."""
        return self.strata[UNIT]


def no_evidence(tests: Tests) -> Evidence:
    """At arming, and again after an incident resolved."""
    strata = {
        name: StratumEvidence({k: features.initial(of) for k, of in own.features.items()}, scores.initial(own.scores))
        for name, own in tests.strata.items()
    }
    return Evidence(strata, traffic.initial(tests.traffic))


@dataclass(frozen=True)
class Tick:
    """The evidence after a window, and what the statistics came to in it.

    Attributes:
        features: [d_sae] weeks, by (stratum, kind).
        means: [len(MeanTests)] weeks, by direction.
        scores: by stratum.
    """

    evidence: Evidence
    features: dict[tuple[str, str], Floats]
    means: dict[Direction, Floats]
    scores: dict[str, ScorePeaks]


def update(tests: Tests, evidence: Evidence, window: Window, w: float, at_ms: int | None) -> Tick:
    """One window of w weeks: all tests of all strata.

    Of a stratum without requests in it the time waits for the next: evidence that grew with time alone would alarm
    about nothing.

    `at_ms` is the lane's time, Unix epoch; None for requests that were drawn, which are of no time.
    """
    strata, of_features, of_scores = {}, dict[tuple[str, str], Floats](), dict[str, ScorePeaks]()
    for name, own in tests.strata.items():
        before, (n, arrays) = evidence.strata[name], stratum_of(window, name)
        seen, after = seen_in(n, arrays), dict[str, FeatureEvidence]()
        waited = min(before.waited + w, max(w, MOST_WEEKS))
        own_w = waited if n else 0.0
        for kind, of in own.features.items():
            factor = tests.factor(of.kind.direction, at_ms)
            after[kind], of_features[name, kind] = features.tick(of, before.features[kind], seen, own_w, factor)
        rows = widened(arrays["request_scores"], len(SCORES))
        moved, of_scores[name] = scores.tick(own.scores, before.scores, rows, own_w, tests.score_thresholds(name))
        strata[name] = StratumEvidence(after, moved, 0.0 if n else min(waited, MOST_WEEKS))
    of_means = {kind.direction: means.values(tests.means[kind.direction], of_features[UNIT, str(kind)])
                for kind in RATES if kind.direction in tests.means}  # fmt: skip
    moved_traffic = traffic.tick(tests.traffic, evidence.traffic, window, w)
    return Tick(Evidence(strata, moved_traffic), of_features, of_means, of_scores)
