"""What is told of a lane: its incident's features and scores by their evidence, and the alert of a transition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import DIRECTIONS, SCORE_TESTS, Evidence, Tests, median, score_thresholds
from stream_interp.detect.incident import Incident
from stream_interp.detect.state import LaneState
from stream_interp.records.alert import Alert, FeatureDrift, ScoreDrift, Severity, Transition, event_id
from stream_interp.records.lane import Lane, digest
from stream_interp.records.window import SCORES

TOP_FEATURES = 20  # listed in alerts and status; the incident itself keeps all


def cause_hint(incident: Incident) -> str:
    """The likeliest cause class. Some scores see activations without the SAE: when they are silent, it is to blame."""
    raw = any(SCORE_TESTS[k].is_raw for k in incident.scores.index)
    return "sae_health" if "health" in incident.groups and not raw else "data_shift"


def feature_drifts(
    incident: Incident, tests: Tests, evidence: Evidence, top: int | None = TOP_FEATURES
) -> list[FeatureDrift]:
    """The strongest listed features by their evidence; all of them with `top` None."""
    drifts = []
    log_a = float(np.log(tests.thresholds.get("features", np.inf)))
    for direction in DIRECTIONS:
        listed, moving = incident.listed(direction), evidence.rates[direction]
        for row in np.argsort(-listed.log_e, kind="stable")[:top]:
            feature = int(listed.index[row])
            baseline = float(tests.rate_baseline[feature])
            since = int(moving.n_since[feature])  # 0: nothing speaks for a change any more
            now = float(moving.x_since[feature]) / since if since else baseline
            drifts.append(
                FeatureDrift(
                    feature=feature, direction="new" if baseline == 0 else direction, log_e=float(listed.log_e[row]),
                    log_threshold=log_a, rate_baseline=baseline, rate_now=now, requests_now=since,
                    detected_request=int(listed.request[row]),
                )
            )  # fmt: skip
    return sorted(drifts, key=lambda d: -d.log_e)[:top]


def score_drifts(incident: Incident, tests: Tests, recent: NDArray[np.float32]) -> list[ScoreDrift]:
    """The listed scores; `recent` [n, S] are the latest requests' scores."""
    a_weeks = score_thresholds(tests)
    drifts = []
    for row, k in enumerate(incident.scores.index):
        test = SCORE_TESTS[k]
        now = recent[:, SCORES.index(test.score)]
        drifts.append(
            ScoreDrift(
                score=test.score, direction=test.direction, group=test.group, log_e=float(incident.scores.log_e[row]),
                log_threshold=float(np.log(a_weeks[k])), baseline_median=tests.medians[test.score],
                now_median=median(now),
                detected_request=int(incident.scores.request[row]),
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
    assert state.tests is not None
    assert state.evidence is not None
    assert state.baseline is not None
    severity: Severity = "critical" if incident.severity == "critical" else "warning"
    return Alert(
        event_id=event_id(state.lane, incident.number, transition, state.position),
        lane=state.lane,
        incident_id=incident_id(state.lane, incident.number),
        transition=transition,
        severity=severity,
        status="ok" if transition == "resolved" else severity,
        cause_hint=cause_hint(incident),
        groups=list(incident.groups),
        features_drifted=incident.features_drifted,
        features=feature_drifts(incident, state.tests, state.evidence),
        scores=score_drifts(incident, state.tests, state.recent_scores),
        opened_request=incident.opened_request,
        request=state.requests,
        change_estimate_request=incident.change_estimate_request,
        at_ms=state.closed_at_ms,
        position=state.position,
        window_id=window_id,
        baseline_version=state.baseline.header.version,
        explanations_reliable="health" not in incident.groups,
        note=note,
        runbook=f"{cause_hint(incident)}.md",
    )


def lane_alert(state: LaneState, transition: Transition, severity: Severity, at_ms: int, cause: str) -> Alert:
    """A transition of the lane itself, outside any incident."""
    return Alert(
        event_id=event_id(state.lane, 0, f"{transition} {cause}", state.position), lane=state.lane,
        incident_id=digest(state.lane.lane_id, "lane", cause)[:16], transition=transition, severity=severity,
        status={"blind": "blind", "integrity_error": "integrity_error"}.get(transition, "ok"), cause_hint=cause,
        request=state.requests, at_ms=at_ms, position=state.position, runbook=f"{cause}.md",
    )  # fmt: skip
