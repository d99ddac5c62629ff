"""The armed tests of a lane: constants that follow from its baseline and settings, and the evidence that moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import budget, esr, exceedance
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.exceedance import Exceedance
from stream_interp.drift.intervals import DELTA, clopper_pearson
from stream_interp.records.alert import Group
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader
from stream_interp.records.window import SCORES, Window, scores_of
from stream_interp.settings import DriftSettings

HIGHEST_TESTED_RATE = 0.95  # an up-test whose null touches 1 can never alarm
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
_BLOCK_REQUESTS = 512  # of score tests at once: 1.1 MB of path
_CUSUM = 1  # the mixture component whose CUSUM dates a change: odds ratio 2.6


class ScoreTest(NamedTuple):
    """One one-sided request-level test."""

    score: str
    direction: Direction
    group: Group

    @property
    def is_raw(self) -> bool:
        """It sees the activations alone, not what an SAE makes of them."""
        return self.group == "t0" and self.score not in _NEED_SAE


# In the order of SCORES, new ones last. A baseline has those of the scores that it was counted with, so that its δ, its
# shares and its evidence stay as they were frozen, and a row means the same test whatever the baseline.
SCORE_TESTS = (
    ScoreTest("mean_sq_norm", "up", "t0"),
    ScoreTest("mean_sq_norm", "down", "t0"),
    ScoreTest("mahalanobis_sq", "up", "t0"),
    ScoreTest("error_share", "up", "health"),
    ScoreTest("l0", "up", "health"),
    ScoreTest("l0", "down", "health"),
    ScoreTest("massive_share", "up", "health"),
    ScoreTest("surprise", "up", "t0"),
)
_NEED_SAE = {"error_share", "l0", "surprise"}


@dataclass(frozen=True)
class RateTests:
    """The per-feature tests of one direction.

    Attributes:
        p: [d_sae] boundary of the interval null; of unarmed features a placeholder.
        armed: [d_sae] bool.
        log_norm: [C, d_sae].
    """

    direction: Direction
    p: Floats
    armed: NDArray[np.bool_]
    log_norm: Floats


@dataclass(frozen=True)
class Tests:
    """All tests of a lane; a pure function of (baseline, settings).

    Attributes:
        rates: up-tests and down-tests of the features.
        scores: the first K of SCORE_TESTS, K as the baseline has it.
        rate_baseline: [d_sae] share of baseline requests in which each feature fired.
        thresholds: A in weeks, by group.
        medians: baseline median of each score that the lane has.
        detectable_ratio: [d_sae] smallest rate ratio seen within `drift.sla_requests`, inf where none is.
    """

    rates: dict[Direction, RateTests]
    scores: Exceedance
    rate_baseline: Floats
    thresholds: dict[str, float]
    medians: dict[str, float]
    detectable_ratio: Floats

    @property
    def features_armed(self) -> int:
        """Features with a test in at least one direction."""
        return int((self.rates["up"].armed | self.rates["down"].armed).sum())

    @property
    def features_not_covered(self) -> int:
        """Features of which no change of up to 64-fold would be seen within `drift.sla_requests`."""
        return int(np.isinf(self.detectable_ratio).sum())


def build(baseline: BaselineHeader, arrays: Arrays, settings: DriftSettings) -> Tests:
    """Arms the tests. Half of δ goes to the features' intervals, half to the thresholds of the scores."""
    fired, scores = arrays["requests_fired"].astype(np.int64), arrays["calibration_scores"][:, : len(SCORES)]
    n, d_sae = baseline.requests, len(fired)
    low, high = clopper_pearson(fired, n, DELTA / 2 / max(2 * d_sae, 1))
    up = _rate_tests("up", high * settings.tolerance)
    down = _rate_tests("down", low / settings.tolerance, at_least=1 / settings.sla_requests)
    scores, names = scores.astype(np.float32), SCORES[: scores.shape[1]]
    tests = [t for t in SCORE_TESTS if t.score in names]
    columns = [(names.index(t.score), 1 if t.direction == "up" else -1) for t in tests]
    if not d_sae:
        scores[:, [name in _NEED_SAE for name in names]] = np.nan
    exceed = exceedance.build(scores, columns, DELTA / 2 / (len(tests) * len(exceedance.RANKS)))
    armed = {group: sum(t.group == group and bool(a) for t, a in zip(tests, exceed.armed, strict=True))
             for group in ("t0", "health")}  # fmt: skip
    armed["features"] = int(up.armed.sum() + down.armed.sum())
    a_weeks = budget.thresholds(armed, settings.false_alarms_per_week)
    ratio = _detectable_ratio(np.maximum(fired, 0.5) / max(n, 1), up, down, a_weeks.get("features", np.inf), settings)
    medians = {name: value for i, name in enumerate(names) if (value := median(scores[:, i])) is not None}
    return Tests({"up": up, "down": down}, exceed, fired / max(n, 1), a_weeks, medians, ratio)


def median(scores: NDArray[np.float32]) -> float | None:
    """The median of the finite scores [n]; None where there is none: JSON has no NaN."""
    finite = scores[np.isfinite(scores)]
    return float(np.median(finite)) if len(finite) else None


def _rate_tests(direction: Direction, p: Floats, at_least: float = 0.0) -> RateTests:
    armed = (p < HIGHEST_TESTED_RATE) & (p > at_least)
    placeholder = np.where(armed, p, 0.5)
    return RateTests(direction, placeholder, armed, esr.log_normaliser(placeholder, direction))


def _detectable_ratio(rate: Floats, up: RateTests, down: RateTests, a_weeks: float, settings: DriftSettings) -> Floats:
    """Smallest ratio whose expected log evidence in sla_requests reaches the threshold, by Wald's approximation."""
    needed = _evidence_needed(a_weeks, settings) / settings.sla_requests
    best = np.full(len(rate), np.inf)
    for ratio in (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 64.0):
        for tests in (up, down):
            seen = tests.armed & (_gain(tests, rate, ratio) >= needed)
            best = np.where(seen & (best > ratio), ratio, best)
    return best


def _evidence_needed(a_weeks: float, settings: DriftSettings) -> float:
    """Log evidence from one request's weight to A with one component of the mixture."""
    return float(np.log(len(esr.ODDS_RATIOS) * a_weeks * settings.requests_per_week))


def _gain(tests: RateTests, rate: Floats, ratio: float) -> Floats:
    """[d_sae] expected log evidence a request of the best component, once the rate is `ratio` times more, or less."""
    now = np.minimum(rate * ratio, 1.0) if tests.direction == "up" else rate / ratio
    gain: Floats = (np.multiply.outer(esr.log_odds(tests.direction), now) - tests.log_norm).max(axis=0)
    return gain


def expected_delay(tests: Tests, direction: Direction, ratio: float, requests: int, settings: DriftSettings) -> Floats:
    """[d_sae] requests until a change of a feature's rate is seen, by Wald's approximation; inf where it never is.

    Args:
        tests: of the lane.
        direction: up: the rate is multiplied by `ratio`; down: divided.
        ratio: > 1.
        requests: of the baseline.
        settings: those that the tests were built with.
    """
    rates, rate = tests.rates[direction], np.maximum(tests.rate_baseline, 0.5 / max(requests, 1))
    gain, needed = _gain(rates, rate, ratio), _evidence_needed(tests.thresholds.get("features", np.inf), settings)
    delay: Floats = np.where(rates.armed & (gain > 0), needed / np.where(gain > 0, gain, 1.0), np.inf)
    return delay


@dataclass(frozen=True)
class RateEvidence:
    """What moves for the features of one direction.

    Attributes:
        m: [C, d_sae] e-SR components, weeks.
        cusum: [d_sae] log CUSUM of one component; where it touches 0 the change, if any, lies later.
        n_since, x_since: [d_sae] int32 requests, and requests fired, since it last touched 0.
    """

    m: Floats
    cusum: Floats
    n_since: NDArray[np.int32]
    x_since: NDArray[np.int32]


@dataclass(frozen=True)
class Evidence:
    """Everything that moves while a lane is armed."""

    rates: dict[Direction, RateEvidence]
    scores: Floats  # [C, K·ranks]
    score_cusum: Floats  # [K·ranks]
    score_n_since: NDArray[np.int32]  # [K·ranks]


def no_evidence(tests: Tests) -> Evidence:
    """At arming, and again after an incident resolved."""
    d_sae, cells = len(tests.rate_baseline), tests.scores.thresholds.size
    rates = {
        direction: RateEvidence(
            np.zeros((len(esr.ODDS_RATIOS), d_sae)),
            np.zeros(d_sae),
            np.zeros(d_sae, np.int32),
            np.zeros(d_sae, np.int32),
        )
        for direction in DIRECTIONS
    }
    return Evidence(rates, exceedance.initial(tests.scores), np.zeros(cells), np.zeros(cells, np.int32))


def update_rates(tests: Tests, evidence: Evidence, window: Window, w: float) -> dict[Direction, RateEvidence]:
    """One tick of all feature tests, in one vectorised update a direction."""
    fired = window.arrays["requests_fired"]
    some = fired > 0
    ids, x = window.arrays["feature_ids"][some].astype(np.int64), fired[some].astype(np.float64)
    n = window.header.requests
    return {d: _tick(tests.rates[d], evidence.rates[d], ids, x, n, w) for d in DIRECTIONS}


def _tick(tests: RateTests, before: RateEvidence, ids: NDArray[np.int64], x: Floats, n: int, w: float) -> RateEvidence:
    lam = esr.log_odds(tests.direction)
    m = esr.update(before.m, w, n, tests.p, tests.direction, ids, x)
    cusum = before.cusum - n * tests.log_norm[_CUSUM]
    cusum[ids] += lam[_CUSUM] * x
    n_since, x_since = before.n_since + np.int32(n), before.x_since.copy()
    x_since[ids] += x.astype(np.int32)
    over = cusum <= 0
    cusum[over], n_since[over], x_since[over] = 0.0, 0, 0
    return RateEvidence(m, cusum, n_since, x_since)


class ScoreCrossing(NamedTuple):
    """The state of the score tests after a window, and what their statistic peaked at inside it."""

    evidence: Evidence
    peak: Floats  # [K] largest statistic, weeks
    cell_peak: Floats  # [K, ranks] the same of each threshold by itself
    first_over: NDArray[np.int64]  # [K] request inside the window, from 1, at which A was first reached; 0 = never


def update_scores(tests: Tests, evidence: Evidence, window: Window, w: float) -> ScoreCrossing:
    """One step a request, in log order; the window's time is spread evenly over its requests."""
    over = exceedance.exceeds(tests.scores, scores_of(window))
    m, a_weeks = evidence.scores, score_thresholds(tests)
    peak, first = np.zeros(len(a_weeks)), np.zeros(len(a_weeks), np.int64)
    cell_peak = np.zeros(tests.scores.thresholds.shape)
    if not len(over):  # the time passed all the same
        return ScoreCrossing(replace(evidence, scores=m + w), peak, cell_peak, first)
    for at in range(0, len(over), _BLOCK_REQUESTS):
        path = exceedance.path(tests.scores, m, over[at : at + _BLOCK_REQUESTS], w / len(over))
        value, m = exceedance.value(tests.scores, path), path[-1]
        reached = value >= a_weeks
        first = np.where((first == 0) & reached.any(axis=0), at + reached.argmax(axis=0) + 1, first)
        peak = np.maximum(peak, value.max(axis=0))
        cell_peak = np.maximum(cell_peak, exceedance.cells(tests.scores, path).max(axis=0))
    cusum, since = _score_cusum(tests, evidence, over)
    return ScoreCrossing(Evidence(evidence.rates, m.copy(), cusum, since), peak, cell_peak, first)


def _score_cusum(tests: Tests, evidence: Evidence, over: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int32]]:
    """The log CUSUM of each threshold after the requests, and how many came since it last touched 0."""
    up, down = exceedance.LOG_ODDS[_CUSUM] * over.reshape(len(over), -1), tests.scores.log_norm[_CUSUM]
    cusum, touched = evidence.score_cusum, np.empty(up.shape, np.bool_)
    for i, step_up in enumerate(up):
        cusum = cusum + step_up - down
        touched[i] = cusum <= 0
        cusum = np.maximum(cusum, 0)
    since = np.where(touched.any(axis=0), touched[::-1].argmax(axis=0), evidence.score_n_since + len(over))
    return cusum, since.astype(np.int32)


def score_thresholds(tests: Tests) -> Floats:
    """A of each score test, [K] weeks; inf where unarmed."""
    return np.array(
        [tests.thresholds.get(t.group, np.inf) if armed else np.inf
         for t, armed in zip(SCORE_TESTS, tests.scores.armed, strict=False)]  # the first K
    )  # fmt: skip
