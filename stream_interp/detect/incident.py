"""Incidents: a lane has at most one, every detection joins it, it resolves on evidence of recovery (design §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import DIRECTIONS, SCORE_TESTS, Evidence, ScoreCrossing, Tests, score_thresholds
from stream_interp.drift import esr, exceedance, recovery
from stream_interp.drift.esr import Direction, Floats
from stream_interp.records.alert import Group
from stream_interp.records.window import Window, scores_of

CRITICAL_FACTOR = 20.0  # one test at 20·A makes an incident critical


@dataclass(frozen=True)
class Listed:
    """The tests of one kind that an incident lists, [m] each.

    Attributes:
        index: feature, or row of SCORE_TESTS.
        e: [C, m·cells] recovery e-process; cells = 1 for features, len(RANKS) for scores.
        tick: [m·cells] ticks since each process started.
        crossed: [m·cells] bool, which cells reached A themselves: each of those must recover. That a score's other
            thresholds look normal is no evidence: rare outliers move the highest ranks alone.
        request: lane's request at detection.
        log_e: largest log statistic so far, weeks.
    """

    index: NDArray[np.int64]
    e: Floats
    tick: NDArray[np.int64]
    crossed: NDArray[np.bool_]
    request: NDArray[np.int64]
    log_e: Floats


def _nothing_listed() -> Listed:
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    return Listed(none, np.zeros((len(recovery.ODDS_RATIOS), 0)), none, none.astype(bool), none, np.zeros(0))


@dataclass(frozen=True)
class Incident:
    """The open incident of a lane."""

    number: int
    severity: str
    opened_request: int
    opened_at_ms: int
    change_estimate_request: int
    groups: tuple[Group, ...]
    up: Listed
    down: Listed
    scores: Listed
    recovering: bool = False

    @property
    def features_drifted(self) -> int:
        """Features listed in either direction."""
        return len(np.union1d(self.up.index, self.down.index))

    def listed(self, direction: Direction) -> Listed:
        """The listed features of one direction."""
        return self.up if direction == "up" else self.down


@dataclass(frozen=True)
class Crossings:
    """The tests that are at or over A after a window, by kind, and the largest statistic in units of A."""

    up: NDArray[np.int64]
    down: NDArray[np.int64]
    scores: NDArray[np.int64]
    score_request: NDArray[np.int64]  # [K] request inside the window, 0 = not crossed
    score_peak: Floats
    score_cells: NDArray[np.bool_]  # [K, ranks] thresholds that reached A by themselves
    largest_over_a: float

    @property
    def groups(self) -> set[Group]:
        """The groups with a crossing."""
        crossed: set[Group] = {SCORE_TESTS[i].group for i in self.scores}
        return crossed | ({"features"} if len(self.up) or len(self.down) else set())


def crossings(tests: Tests, evidence: Evidence, scores: ScoreCrossing) -> Crossings:
    """Which tests have crossed."""
    a_features, a_scores = tests.thresholds.get("features", np.inf), score_thresholds(tests)
    values = {d: esr.value(evidence.rates[d].m) * tests.rates[d].armed for d in DIRECTIONS}
    over = {d: np.flatnonzero(values[d] >= a_features) for d in DIRECTIONS}
    largest = max([0.0, *(float(values[d].max()) / a_features for d in DIRECTIONS if len(values[d]))])
    largest = max(largest, float((scores.peak / a_scores).max()))
    crossed, cells = np.flatnonzero(scores.first_over), scores.cell_peak >= a_scores[:, None]
    return Crossings(over["up"], over["down"], crossed, scores.first_over, scores.peak, cells, largest)


def opened_or_joined(
    incident: Incident | None,
    found: Crossings,
    tests: Tests,
    evidence: Evidence,
    request: int,
    at_ms: int,
    window: Window,
    number: int,
) -> Incident | None:
    """The incident after a window whose last request is the lane's `request`-th; None while nothing crossed."""
    if incident is None and not found.groups:
        return None
    base = incident or Incident(
        number=number, severity="warning", opened_request=request, opened_at_ms=at_ms,
        change_estimate_request=_change_estimate(tests, evidence, found, request), groups=(),
        up=_nothing_listed(), down=_nothing_listed(), scores=_nothing_listed(),
    )  # fmt: skip
    groups: tuple[Group, ...] = tuple(sorted({*base.groups, *found.groups}))
    later = np.setdiff1d(found.scores, base.scores.index) if incident else ()
    health_later = any(SCORE_TESTS[i].group == "health" for i in later)  # the incident was open when health crossed
    critical = len(groups) >= 2 or found.largest_over_a >= CRITICAL_FACTOR or health_later
    first = request - window.header.requests
    with np.errstate(divide="ignore"):
        log_rates = {d: np.log(esr.value(evidence.rates[d].m)) for d in DIRECTIONS}
        log_scores = np.log(found.score_peak)
    alone = np.broadcast_to(np.True_, (len(tests.rate_baseline), 1))  # a feature has one cell
    score_requests = first + found.score_request[found.scores]
    return replace(
        base,
        severity="critical" if critical else base.severity,
        groups=groups,
        up=_join(base.up, found.up, log_rates["up"], np.full(len(found.up), request), alone),
        down=_join(base.down, found.down, log_rates["down"], np.full(len(found.down), request), alone),
        scores=_join(base.scores, found.scores, log_scores, score_requests, found.score_cells),
    )


def _join(
    listed: Listed, crossed: NDArray[np.int64], log_e: Floats, request: NDArray[np.int64], cells: NDArray[np.bool_]
) -> Listed:
    """Adds the crossed tests that are not listed yet.

    A cell that crosses for the first time starts its recovery then; `cells` [K, cells] says which have crossed.
    """
    new = ~np.isin(crossed, listed.index)
    index = np.concatenate([listed.index, crossed[new]])
    added = int(new.sum())
    before = np.concatenate([listed.crossed, np.zeros(added * cells.shape[1], bool)])
    after = before | cells[index].ravel()
    waiting = len(after) - len(listed.tick)
    e = np.concatenate([listed.e, np.zeros((len(recovery.ODDS_RATIOS), waiting))], axis=1)
    tick = np.concatenate([listed.tick, np.zeros(waiting, np.int64)])
    return Listed(
        index=index,
        e=np.where(after & ~before, 0.0, e),
        tick=np.where(after & ~before, 0, tick),
        crossed=after,
        request=np.concatenate([listed.request, request[new]]),
        log_e=np.maximum(np.concatenate([listed.log_e, np.full(added, -np.inf)]), log_e[index]),
    )


def _change_estimate(tests: Tests, evidence: Evidence, found: Crossings, request: int) -> int:
    """Where the CUSUM of the strongest crossed test last touched 0."""
    if len(found.scores):
        cells = evidence.score_n_since.reshape(tests.scores.thresholds.shape)
        strongest = found.scores[np.argmax(found.score_peak[found.scores])]
        return request - int(cells[strongest].max())
    since = np.concatenate([evidence.rates["up"].n_since[found.up], evidence.rates["down"].n_since[found.down]])
    return request - int(np.median(since))


def recovered_or_not(incident: Incident, tests: Tests, window: Window) -> tuple[Incident, bool]:
    """Feeds a later window to the recovery of every listed test; True once all of them reached 20."""
    n = window.header.requests
    if not n:
        return incident, False
    counts = np.zeros(len(tests.rate_baseline))
    counts[window.arrays["feature_ids"]] = window.arrays["requests_fired"]
    up = _recovery(incident.up, tests.rates["up"].p, "up", n, counts)
    down = _recovery(incident.down, tests.rates["down"].p, "down", n, counts)
    scores = _score_recovery(incident.scores, tests, window)
    lowest = min(float(esr.value(listed.e)[listed.crossed].min(initial=np.inf)) for listed in (up, down, scores))
    recovering = lowest >= recovery.RECOVERING or (incident.recovering and lowest >= 1)
    after = replace(incident, up=up, down=down, scores=scores, recovering=recovering)
    return after, lowest >= recovery.RECOVERED


def _recovery(listed: Listed, p: Floats, alarmed: Direction, n: float, counts: Floats) -> Listed:
    tick = listed.tick + 1
    e = recovery.update(listed.e, tick, p[listed.index], alarmed, n, counts[listed.index])
    return replace(listed, e=e, tick=tick)


def _score_recovery(listed: Listed, tests: Tests, window: Window) -> Listed:
    scores = scores_of(window)
    x = exceedance.exceeds(tests.scores, scores).sum(axis=0)[listed.index].astype(np.float64)
    known = (~np.isnan(scores[:, tests.scores.column[listed.index]])).sum(axis=0)  # a missing score is no evidence
    n, p = np.repeat(known, x.shape[1]).astype(np.float64), tests.scores.null_rates[listed.index]
    tick = listed.tick + 1
    return replace(listed, e=recovery.update(listed.e, tick, p.ravel(), "up", n, x.ravel()), tick=tick)
