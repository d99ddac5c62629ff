"""What is told of a lane: its incident's features and scores by their evidence, and the alert of a transition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed.features import RATES, FeatureEvidence, Kind
from stream_interp.detect.armed.scores import SCORE_TESTS, median
from stream_interp.detect.armed.traffic import shifts
from stream_interp.detect.cause import cause_of
from stream_interp.detect.crossings import Of, parse
from stream_interp.detect.incident import Incident
from stream_interp.detect.listed import SCORES_KIND, Listed
from stream_interp.detect.state import LaneState, no_scores
from stream_interp.drift.esr import Floats
from stream_interp.records.alert import Alert, FeatureDrift, ScoreDrift, Severity, TrafficShift, Transition, event_id
from stream_interp.records.lane import Lane, digest
from stream_interp.records.window import SCORES, UNIT

TRAFFIC_MIX, BASELINE_CREEP = "traffic_mix", "baseline_creep"
TOP_FEATURES = 20  # listed in alerts and status; the incident itself keeps all
TOP_EFFECTS = 5


def feature_drifts(state: LaneState, incident: Incident, top: int | None = TOP_FEATURES) -> list[FeatureDrift]:
    """The strongest listed features by their evidence; all of them with `top` None."""
    drifts: list[FeatureDrift] = []
    for of, listed in _of_features(incident):
        drifts += _drifts(state, of, listed, np.argsort(-listed.log_e, kind="stable")[:top])
    return sorted(drifts, key=lambda d: -d.log_e)[:top]


def largest_effects(state: LaneState, incident: Incident) -> list[FeatureDrift]:
    """Of all listed features those that moved most, whatever the evidence: what is listed has enough of it.

    Each once, by the measure of it that moved most.
    """
    ranked = list[tuple[float, FeatureDrift]]()
    for of, listed in _of_features(incident):
        effects = _effects(state, of, listed)
        rows = np.argsort(-effects, kind="stable")[:TOP_EFFECTS]
        ranked += zip(effects[rows].tolist(), _drifts(state, of, listed, rows), strict=True)
    largest = dict[int, FeatureDrift]()
    for _, drift in sorted(ranked, key=lambda pair: -pair[0]):
        largest.setdefault(drift.feature, drift)
    return list(largest.values())[:TOP_EFFECTS]


def _of_features(incident: Incident) -> list[tuple[Of, Listed]]:
    return [(of, listed) for name, listed in incident.listed.items() if (of := parse(name)).kind != SCORES_KIND]


def _effects(state: LaneState, of: Of, listed: Listed) -> Floats:
    """[m] |log(now / before)|, half a request added to both: what never fired has one, few requests no great one."""
    assert state.tests is not None
    assert state.evidence is not None
    own = state.tests.strata[of.stratum]
    kind, index, n, x = own.features[of.kind].kind, listed.index, listed.n_now, listed.x_now
    if kind.measure == "rate":
        evidence = state.evidence.strata[of.stratum].features[of.kind]
        n, x = evidence.n_since[index].astype(np.float64), evidence.x_since[index].astype(np.float64)
    before_n = own.fired[index] if kind.measure == "magnitude_when_fired" else own.requests
    before = (own.level(kind)[index] * before_n + 0.5) / (before_n + 1)
    moved: Floats = np.abs(np.log((x + 0.5) / (n + 1) / before))
    return np.where(n > 0, moved, 0.0)


def _drifts(state: LaneState, of: Of, listed: Listed, rows: NDArray[np.int64]) -> list[FeatureDrift]:
    assert state.tests is not None
    assert state.evidence is not None
    own, evidence = state.tests.strata[of.stratum], state.evidence.strata[of.stratum].features
    kind = own.features[of.kind].kind
    a_weeks = state.tests.a_weeks(kind.group)
    level, rates = own.level(kind), own.level(RATES[0])
    of_rates = evidence[str(Kind("rate", kind.direction))]
    drifts = []
    for row in rows:
        feature = int(listed.index[row])
        baseline, (rate_now, since) = float(rates[feature]), _rate_now(of_rates, rates, feature)
        magnitude = listed.x_now[row] / listed.n_now[row] if kind.measure != "rate" and listed.n_now[row] else None
        now, before = rate_now if kind.measure == "rate" else magnitude, float(level[feature])
        is_new = kind.measure == "rate" and baseline == 0
        drifts.append(
            FeatureDrift(
                feature=feature, direction="new" if is_new else kind.direction, log_e=float(listed.log_e[row]),
                log_threshold=float(np.log(a_weeks)), rate_baseline=baseline, rate_now=rate_now, requests_now=since,
                detected_request=int(listed.request[row]), measure=kind.measure, stratum=of.stratum,
                magnitude_baseline=None if kind.measure == "rate" else before,
                magnitude_now=None if magnitude is None else float(magnitude),
                effect=float(now / before) if now is not None and before > 0 else None,
                change_request=_change_request(state, of, listed, row),
                first_offset=int(listed.offset[row]), last_offset=state.position.offset,
                budget_share=_share(state, a_weeks),
            )
        )  # fmt: skip
    return drifts


def _rate_now(evidence: FeatureEvidence, baseline: Floats, feature: int) -> tuple[float, int]:
    """The rate since the evidence began, and of how many requests; the baseline's where nothing speaks for a change."""
    since = int(evidence.n_since[feature])
    fired = float(evidence.x_since[feature])
    return (fired / since if since else float(baseline[feature])), since


def _change_request(state: LaneState, of: Of, listed: Listed, row: int) -> int:
    """Where the evidence began, as it stands now; not after the detection."""
    assert state.tests is not None
    assert state.evidence is not None
    since = state.evidence.strata[of.stratum].features[of.kind].n_since[listed.index[row]]
    lane = round(float(state.tests.lane_requests(of.stratum, since)))
    return max(0, min(int(listed.request[row]), state.requests - lane))


def _share(state: LaneState, a_weeks: float) -> float:
    """Of the budget: A = 1 / (share · false alarms a week)."""
    return float(1 / (a_weeks * state.settings.drift.false_alarms_per_week))


def score_drifts(state: LaneState, incident: Incident) -> list[ScoreDrift]:
    """The listed scores; what is now is of the latest requests, and of their unit: of other strata it is not kept."""
    assert state.tests is not None
    drifts = []
    for name, listed in incident.listed.items():
        stratum, kind = parse(name)
        if kind != SCORES_KIND:
            continue
        a_weeks = state.tests.score_thresholds(stratum)
        for row, k in enumerate(listed.index):
            test = SCORE_TESTS[k]
            now = state.recent_scores[:, SCORES.index(test.score)] if stratum == UNIT else no_scores()
            drifts.append(
                ScoreDrift(
                    score=test.score, direction=test.direction, group=test.group, log_e=float(listed.log_e[row]),
                    log_threshold=float(np.log(a_weeks[k])),
                    baseline_median=state.tests.strata[stratum].medians[test.score],
                    now_median=median(now), detected_request=int(listed.request[row]), stratum=stratum,
                    first_offset=int(listed.offset[row]), last_offset=state.position.offset,
                    budget_share=_share(state, float(a_weeks[k])),
                )
            )  # fmt: skip
    return drifts


def incident_id(lane: Lane, number: int) -> str:
    """The same for all transitions of an incident."""
    return digest(lane.lane_id, "incident", number)[:16]


def incident_alert(
    state: LaneState, incident: Incident, transition: Transition, window_id: str = "", note: str = ""
) -> Alert:
    """A transition of an incident of an armed lane."""
    assert state.baseline is not None
    cause = cause_of(state, incident)
    severity: Severity = "critical" if incident.severity == "critical" else "warning"
    return Alert(
        event_id=event_id(state.lane, incident.number, transition, state.position),
        lane=state.lane,
        incident_id=incident_id(state.lane, incident.number),
        transition=transition,
        severity=severity,
        status="ok" if transition == "resolved" else severity,
        cause_hint=cause.name,
        groups=list(incident.groups),
        features_drifted=incident.features_drifted,
        features=feature_drifts(state, incident),
        scores=score_drifts(state, incident),
        by_effect=largest_effects(state, incident),
        causes=cause.evidence,
        opened_request=incident.opened_request,
        request=state.requests,
        change_estimate_request=incident.change_estimate_request,
        evidence_request=incident.evidence_request,
        at_ms=state.closed_at_ms,
        position=state.position,
        window_id=window_id,
        baseline_version=state.baseline.header.version,
        design_effect=state.baseline.header.largest_design_effect,
        false_alarms_allowed=state.weeks * state.settings.drift.false_alarms_per_week,
        incidents_opened=state.incidents,
        explanations_reliable="health" not in incident.groups,
        note=note,
        runbook=f"{cause.name}.md",
    )


def traffic_shifts(state: LaneState) -> list[TrafficShift]:
    """What an open `traffic_mix` is about; empty where there is none."""
    if state.tests is None or state.evidence is None:
        return []
    return shifts(state.tests.traffic, state.evidence.traffic, state.traffic_note)


def lane_alert(state: LaneState, transition: Transition, severity: Severity, at_ms: int, cause: str) -> Alert:
    """A transition of the lane itself, outside any incident."""
    return Alert(
        event_id=event_id(state.lane, 0, f"{transition} {cause}", state.position), lane=state.lane,
        incident_id=digest(state.lane.lane_id, "lane", cause)[:16], transition=transition, severity=severity,
        status=_status_of_lane(transition, severity), cause_hint=cause,
        request=state.requests, at_ms=at_ms, position=state.position, runbook=f"{cause}.md",
        traffic=traffic_shifts(state) if cause == TRAFFIC_MIX else [],
        creep=state.creep if cause == BASELINE_CREEP else None,
    )  # fmt: skip


def _status_of_lane(transition: Transition, severity: Severity) -> str:
    if transition in ("blind", "integrity_error"):
        return transition
    return "warning" if transition == "noted" and severity == "warning" else "ok"
