"""Incidents: a lane has at most one, every detection joins it, it resolves on evidence of recovery (design §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import Tests, Tick, means
from stream_interp.detect.armed.features import RATES, seen_in
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.listed import (
    SCORES_KIND,
    Listed,
    feed_features,
    feed_scores,
    join,
    nothing_listed,
    seen_now,
)
from stream_interp.detect.witness import Witness
from stream_interp.drift import recovery
from stream_interp.drift.ebh import e_d_bh
from stream_interp.drift.esr import Floats
from stream_interp.records.alert import Group, Position
from stream_interp.records.window import SCORES, UNIT, Window, stratum_of, widened

CRITICAL_FACTOR = 20.0  # one test at 20·A makes an incident critical
_LEAST = 1e-300  # weeks; of a statistic of 0 there is no log


class Of(NamedTuple):
    """Which tests: a kind of feature tests, or the scores, of a stratum."""

    stratum: str
    kind: str

    def __str__(self) -> str:
        """As states name it."""
        return f"{self.stratum}/{self.kind}"


def parse(name: str) -> Of:
    """What `str` of it said."""
    stratum, _, kind = name.partition("/")
    return Of(stratum, kind)


@dataclass(frozen=True)
class Incident:
    """The open incident of a lane.

    Attributes:
        listed: by the name of the tests (`Of`), in the order in which kinds joined.
        evidence_request: lane's request at which a request-level test crossed first; 0 where none did.
        witness: the test whose values tell where the change is; None of a checkpoint of before there was one.
        seen, lost: the lane's counts of requests at its opening.
        cause: the likeliest, as told; empty of a checkpoint of before it was kept.
    """

    number: int
    severity: str
    opened_request: int
    opened_at_ms: int
    change_estimate_request: int
    groups: tuple[Group, ...]
    listed: dict[str, Listed]
    evidence_request: int = 0
    recovering: bool = False
    witness: Witness | None = None
    seen: int = 0
    lost: int = 0
    cause: str = ""

    @property
    def features_drifted(self) -> int:
        """Features listed by any test."""
        indices = [of.index for name, of in self.listed.items() if parse(name).kind != SCORES_KIND]
        return len(np.unique(np.concatenate(indices))) if indices else 0

    @property
    def score_rows(self) -> set[int]:
        """Rows of SCORE_TESTS listed in any stratum."""
        return {int(k) for name, of in self.listed.items() if parse(name).kind == SCORES_KIND for k in of.index}


@dataclass(frozen=True)
class Crossings:
    """The tests that are at or over A after a window, and the largest statistic in units of A.

    Attributes:
        features: indices, by tests.
        means: rows of MeanTests, by direction.
        scores: rows of SCORE_TESTS, by stratum.
    """

    tick: Tick
    features: dict[Of, NDArray[np.int64]]
    means: dict[str, NDArray[np.int64]]
    scores: dict[str, NDArray[np.int64]]
    groups: frozenset[Group]
    largest_over_a: float


def crossings(tests: Tests, tick: Tick) -> Crossings:
    """Which tests have crossed."""
    groups, largest = set[Group](), [0.0]
    features, of_means, scores = (
        dict[Of, NDArray[np.int64]](),
        dict[str, NDArray[np.int64]](),
        dict[str, NDArray[np.int64]](),
    )
    for (stratum, kind), values in tick.features.items():
        group = tests.strata[stratum].features[kind].kind.group
        features[Of(stratum, kind)] = np.flatnonzero(values >= tests.a_weeks(group))
        largest.append(float(values.max(initial=0.0)) / tests.a_weeks(group))
        groups |= {group} if len(features[Of(stratum, kind)]) else set()
    for direction, values in tick.means.items():
        of_means[direction] = np.flatnonzero(values >= tests.a_weeks("means"))
        largest.append(float(values.max(initial=0.0)) / tests.a_weeks("means"))
        groups |= {"means"} if len(of_means[direction]) else set()
    for stratum, peaks in tick.scores.items():
        scores[stratum] = np.flatnonzero(peaks.first_over)
        largest.append(float((peaks.peak / tests.score_thresholds(stratum)).max()))
        groups |= {SCORE_TESTS[k].group for k in scores[stratum]}
    return Crossings(tick, features, of_means, scores, frozenset(groups), max(largest))


def opened_or_joined(
    incident: Incident | None,
    found: Crossings,
    tests: Tests,
    request: int,
    at_ms: int,
    window: Window,
    position: Position,
    number: int,
) -> Incident | None:
    """The incident after a window whose last request is the lane's `request`-th; None while nothing crossed."""
    if incident is None and not found.groups:
        return None
    base = incident or Incident(
        number=number, severity="warning", opened_request=request, opened_at_ms=at_ms,
        change_estimate_request=_change_estimate(tests, found, request), groups=(), listed={},
    )  # fmt: skip
    groups: tuple[Group, ...] = tuple(sorted({*base.groups, *found.groups}))
    later = {k for rows in found.scores.values() for k in rows} - base.score_rows if incident else set()
    health_later = any(SCORE_TESTS[k].group == "health" for k in later)  # the incident was open when health crossed
    critical = len(groups) >= 2 or found.largest_over_a >= CRITICAL_FACTOR or health_later
    return replace(
        base,
        severity="critical" if critical else base.severity,
        groups=groups,
        listed=_joined(base.listed, found, tests, request, window, position.offset),
        evidence_request=base.evidence_request or _first_score_request(found, request - window.header.requests),
    )


def _joined(
    listed: dict[str, Listed], found: Crossings, tests: Tests, request: int, window: Window, offset: int
) -> dict[str, Listed]:
    """With the tests that crossed, and the window in what is said of "now"."""
    joined, first = dict(listed), request - window.header.requests
    crossed = {of: index for of, index in _named(found, tests).items() if len(index) or str(of) in listed}
    for of, index in crossed.items():
        values, own = found.tick.features[of], joined.get(str(of), nothing_listed())
        alone = np.ones((len(values), 1), bool)  # a feature has one cell
        own = join(own, index, np.log(np.maximum(values, _LEAST)), np.full(len(index), request), offset, alone)
        joined[str(of)] = seen_now(own, tests.strata[of.stratum], of.kind, seen_in(*stratum_of(window, of.stratum)))
    for stratum, rows in found.scores.items():
        name, peaks = str(Of(stratum, SCORES_KIND)), found.tick.scores[stratum]
        if len(rows) or name in listed:
            cells = peaks.cell_peak >= tests.score_thresholds(stratum)[:, None]
            log_e, requests = np.log(np.maximum(peaks.peak, _LEAST)), first + peaks.first_over[rows]
            joined[name] = join(joined.get(name, nothing_listed()), rows, log_e, requests, offset, cells)
    return joined


def _named(found: Crossings, tests: Tests) -> dict[Of, NDArray[np.int64]]:
    """Per kind the features to list: those that e-d-BH names, and those that make up a mean that crossed.

    What opens an incident is e-d-Bonferroni, M ≥ A = K/α with α the group's alarms a week; beside it e-d-BH at the same
    α names more features, of which the false share stays below α·weeks in expectation.
    """
    crossed = _declared(found, tests)
    for kind in RATES:
        of = Of(UNIT, str(kind))
        for row in found.means.get(kind.direction, ()):
            made = means.makers(tests.means[kind.direction], int(row), found.tick.features[of])
            crossed[of] = np.union1d(crossed[of], made)
    return crossed


def _declared(found: Crossings, tests: Tests) -> dict[Of, NDArray[np.int64]]:
    """By tests, what e-d-BH names over all tests of a group together."""
    named = {of: np.zeros(0, np.int64) for of in found.features}
    for group in {"features", "magnitude"} & tests.thresholds.keys():
        of_group = [of for of in found.features if tests.strata[of.stratum].features[of.kind].kind.group == group]
        armed = [np.flatnonzero(tests.strata[of.stratum].features[of.kind].armed) for of in of_group]
        values = [found.tick.features[of][index] for of, index in zip(of_group, armed, strict=True)]
        ends = np.cumsum([len(index) for index in armed])
        all_values = np.concatenate([np.zeros(0), *values])
        declared = e_d_bh(all_values, len(all_values) / tests.a_weeks(group))
        bounds = np.searchsorted(declared, [0, *ends])
        for k, (of, index) in enumerate(zip(of_group, armed, strict=True)):
            start = int(ends[k]) - len(index)
            named[of] = index[declared[bounds[k] : bounds[k + 1]] - start]
    return named


def _first_score_request(found: Crossings, first: int) -> int:
    """Of the unit: the requests of other strata are not numbered by themselves. 0 where none crossed."""
    over = found.tick.scores[UNIT].first_over
    return first + int(over[over > 0].min()) if over.any() else 0


def _change_estimate(tests: Tests, found: Crossings, request: int) -> int:
    """Where the evidence of the strongest crossed score began, or of the crossed features by the median."""
    evidence = found.tick.evidence
    if len(found.scores[UNIT]):
        cells = evidence.unit.scores.n_since.reshape(tests.unit.scores.thresholds.shape)
        rows, peaks = found.scores[UNIT], found.tick.scores[UNIT]
        strongest = rows[np.argmax(peaks.peak[rows])]
        return request - int(cells[strongest, np.argmax(peaks.cell_peak[strongest])])
    since = [_lane_requests(tests, of.stratum, evidence.strata[of.stratum].features[of.kind].n_since[index])
             for of, index in _named(found, tests).items()]  # fmt: skip
    for stratum, rows in found.scores.items():
        cells = evidence.strata[stratum].scores.n_since.reshape(tests.strata[stratum].scores.thresholds.shape)
        since.append(_lane_requests(tests, stratum, cells[rows].max(axis=1, initial=0)))
    return max(0, request - int(np.median(np.concatenate(since))))


def _lane_requests(tests: Tests, stratum: str, requests: NDArray[np.int32]) -> Floats:
    """So many requests of a stratum as requests of the lane, by what the baseline had of both."""
    scaled: Floats = requests.astype(np.float64) * (tests.unit.requests / max(tests.strata[stratum].requests, 1))
    return scaled


def recovered_or_not(incident: Incident, tests: Tests, window: Window, at_ms: int) -> tuple[Incident, bool]:
    """Feeds a window of the lane's time `at_ms` to the recovery of every listed test; True once all reached 20."""
    fed = dict(incident.listed)
    for name, of in incident.listed.items():
        stratum, kind = parse(name)
        (n, arrays), own = stratum_of(window, stratum), tests.strata[stratum]
        if not n:
            continue
        if kind == SCORES_KIND:
            fed[name] = feed_scores(of, own, widened(arrays["request_scores"], len(SCORES)))
        else:
            factor = tests.factor(own.features[kind].kind.direction, at_ms)
            fed[name] = feed_features(of, own.features[kind], seen_in(n, arrays), factor)
    if not window.header.requests:
        return replace(incident, listed=fed), False
    lowest = min(of.evidence_of_recovery for of in fed.values())
    recovering = lowest >= recovery.RECOVERING or (incident.recovering and lowest >= 1)
    return replace(incident, listed=fed, recovering=recovering), lowest >= recovery.RECOVERED
