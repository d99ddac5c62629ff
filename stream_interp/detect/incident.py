"""Incidents: a lane has at most one, every detection joins it, it resolves on evidence of recovery (design §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import Tests
from stream_interp.detect.armed.features import seen_in
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.crossings import Crossings, Of, named_features, parse
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
from stream_interp.drift.esr import Floats
from stream_interp.records.alert import Group, Position
from stream_interp.records.window import SCORES, UNIT, Window, stratum_of, widened

CRITICAL_FACTOR = 20.0  # one test at 20·A makes an incident critical
_EVIDENCE_OF: dict[Group, Group] = {"means": "features"}  # means of it: the two together are no second witness
_LEAST = 1e-300  # weeks; of a statistic of 0 there is no log


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
    named = named_features(found, tests)
    base = incident or Incident(
        number=number, severity="warning", opened_request=request, opened_at_ms=at_ms,
        change_estimate_request=_change_estimate(named, found, tests, request), groups=(), listed={},
    )  # fmt: skip
    groups: tuple[Group, ...] = tuple(sorted({*base.groups, *found.groups}))
    later = {k for rows in found.scores.values() for k in rows} - base.score_rows if incident else set()
    health_later = any(SCORE_TESTS[k].group == "health" for k in later)  # the incident was open when health crossed
    witnesses = {_EVIDENCE_OF.get(group, group) for group in groups}
    critical = len(witnesses) >= 2 or found.largest_over_a >= CRITICAL_FACTOR or health_later
    return replace(
        base,
        severity="critical" if critical else base.severity,
        groups=groups,
        listed=_joined(base.listed, named, found, tests, request, window, position.offset),
        evidence_request=base.evidence_request or _first_score_request(found, request - window.header.requests),
    )


def _joined(
    listed: dict[str, Listed],
    named: dict[Of, NDArray[np.int64]],
    found: Crossings,
    tests: Tests,
    request: int,
    window: Window,
    offset: int,
) -> dict[str, Listed]:
    """With the tests that crossed and the features that are named, and the window in what is said of "now"."""
    joined, first = dict(listed), request - window.header.requests
    crossed = {of: index for of, index in named.items() if len(index) or str(of) in listed}
    for of, index in crossed.items():
        values, own = found.tick.features[of], joined.get(str(of), nothing_listed())
        alone = np.ones((len(values), 1), bool)  # a feature has one cell
        own = join(own, index, np.log(np.maximum(values, _LEAST)), np.full(len(index), request), offset, alone)
        kind = tests.strata[of.stratum].features[of.kind].kind
        joined[str(of)] = seen_now(own, kind, seen_in(*stratum_of(window, of.stratum)))
    for stratum, rows in found.scores.items():
        name, peaks = str(Of(stratum, SCORES_KIND)), found.tick.scores[stratum]
        if len(rows) or name in listed:
            cells = peaks.cell_peak >= tests.score_thresholds(stratum)[:, None]
            log_e, requests = np.log(np.maximum(peaks.peak, _LEAST)), first + peaks.first_over[rows]
            joined[name] = join(joined.get(name, nothing_listed()), rows, log_e, requests, offset, cells)
    return joined


def _first_score_request(found: Crossings, first: int) -> int:
    """Of the unit: the requests of other strata are not numbered by themselves. 0 where none crossed."""
    over = found.tick.scores[UNIT].first_over
    return first + int(over[over > 0].min()) if over.any() else 0


def _change_estimate(named: dict[Of, NDArray[np.int64]], found: Crossings, tests: Tests, request: int) -> int:
    """Where the evidence began: of the unit's strongest crossed score, else of all that crossed, by the median."""
    since = {stratum: _score_since(found, tests, stratum) for stratum in found.scores}
    if not len(of_all := since[UNIT]):
        evidence = found.tick.evidence.strata
        of_features = [tests.lane_requests(of.stratum, evidence[of.stratum].features[of.kind].n_since[index])
                       for of, index in named.items()]  # fmt: skip
        of_all = np.concatenate([*of_features, *since.values()])
    return max(0, request - int(np.median(of_all)))


def _score_since(found: Crossings, tests: Tests, stratum: str) -> Floats:
    """[1] the lane's requests since the strongest threshold of a stratum's strongest crossed score rose; [0]: none."""
    rows, peaks = found.scores[stratum], found.tick.scores[stratum]
    strongest = rows[np.argsort(-peaks.peak[rows], kind="stable")[:1]]
    cells = found.tick.evidence.strata[stratum].scores.n_since.reshape(tests.strata[stratum].scores.thresholds.shape)
    return tests.lane_requests(stratum, cells[strongest, peaks.cell_peak[strongest].argmax(axis=1)])


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
