"""What a reader sees of a lane's state."""

from __future__ import annotations

from msgspec import structs

from stream_interp.detect import health
from stream_interp.detect.alerts import (
    BASELINE_CREEP,
    feature_drifts,
    incident_id,
    largest_effects,
    score_drifts,
    traffic_shifts,
)
from stream_interp.detect.cause import cause_of
from stream_interp.detect.labels import SiteLabels
from stream_interp.detect.learning import FIT_SHARE
from stream_interp.detect.operators import Operators
from stream_interp.detect.state import LaneState
from stream_interp.records.status import BaselineCard, Coverage, Health, IncidentCard, State, Status


def status_of(state: LaneState, as_of_ms: int, sequence: int, lag_age_s: float | None = None) -> Status:
    """The status record of a lane; `as_of_ms` and `sequence` are the shell's."""
    current, reason = _state_and_reason(state)
    return Status(
        lane=state.lane,
        state=current,
        reason=reason,
        as_of_ms=as_of_ms,
        closed_at_ms=state.closed_at_ms,
        created_ms=state.created_ms,
        position=state.position,
        sequence=sequence,
        requests=state.requests,
        learning=_learning(state),
        coverage=coverage_of(state),
        health=health_of(state),
        baseline=_baseline_card(state),
        incident=_incident_card(state),
        traffic=traffic_shifts(state),
        creep=state.creep,
        second_opinions={name: opinion.drifts for name, opinion in state.opinions.items()},
        lag_age_s=lag_age_s,
    )


def said_of_lane(
    status: Status, state: LaneState, operators: Operators, labels: SiteLabels, sinks_failing: list[str]
) -> Status:
    """With what operators said of the lane and its incident, its labels, and what NOTIFY says of its sinks."""
    incident = status.incident
    story = state.stories.get(incident.incident_id) if incident is not None else None
    if incident is not None and story is not None:
        incident = structs.replace(incident, ack=operators.ack_of(story))
    silence = operators.silence_of(state.lane.lane_id, status.as_of_ms)
    said = structs.replace(status, incident=incident, silence=silence, sinks_failing=sinks_failing)
    return labels.on_status(said, state.tests.d_sae if state.tests else None)


def _state_and_reason(state: LaneState) -> tuple[State, str]:
    """Worst wins."""
    if state.clock_fault:
        return "integrity_error", "clock: windows are stamped more than 60 s ahead of the log, or behind those before"
    if state.fault:
        return "integrity_error", state.fault
    if state.canary.deaf:
        return "integrity_error", f"canary: a planted shift was not seen by: {', '.join(state.canary.waiting)}"
    if state.phase == "refused":
        return "integrity_error", "refused: not stationary: the baseline's requests are not one distribution"
    if state.blind:
        return "blind", "no windows come (status.blind_after_s)"
    if state.deaf:
        return "blind", "windows come, but for another projector; where that does not end, `baseline relearn` does it"
    if state.unencoded:
        return "blind", (
            "requests come that are not encoded in the projector's compute_dtype; coverage counts them as "
            "dtype_unavailable or other_dtype: run ENCODE where it works, or `baseline relearn`"
        )
    if state.incident is not None:
        cause = cause_of(state, state.incident).name
        if state.incident.recovering:
            return "recovering", cause
        return ("critical" if state.incident.severity == "critical" else "warning"), cause
    if state.phase != "armed":
        return "learning", _learning(state)
    if state.creep is not None:
        return "warning", BASELINE_CREEP
    return "ok", ""


def _learning(state: LaneState) -> str:
    if state.phase not in ("fit", "calibrate"):
        return ""
    fit = max(1, int(state.settings.baseline_requests * FIT_SHARE))
    wanted = fit if state.phase == "fit" else state.settings.baseline_requests - fit
    return f"{state.phase} {state.requests}/{wanted}"


def coverage_of(state: LaneState) -> Coverage:
    """Requests that counted, of those seen, and why the rest did not."""
    return Coverage(
        requests_counted=state.counted,
        requests_seen=state.seen,
        reasons=dict(state.reasons),
        features_armed=state.tests.features_armed if state.tests else 0,
        features_not_covered=state.tests.features_not_covered if state.tests else 0,
    )


def health_of(state: LaneState) -> Health:
    """Recent health beside the baseline's."""
    now = health.scalars(state.health_now, with_sae=bool(state.tests and state.tests.d_sae))
    if state.baseline is None:
        return Health(**now)
    reference = structs.asdict(state.baseline.header)
    return Health(**now, **{f"{name}_baseline": reference[name] for name in health.SIGNALS})


def _baseline_card(state: LaneState) -> BaselineCard | None:
    if state.baseline is None:
        return None
    header = state.baseline.header
    return BaselineCard(
        version=header.version,
        requests=header.requests,
        tokens=header.tokens,
        provisional=header.provisional,
        design_effect=header.largest_design_effect,
        dependent=header.dependent,
        stationary_p=header.stationary_p,
        anchor=state.anchor.version if state.anchor else header.version,
    )


def _incident_card(state: LaneState) -> IncidentCard | None:
    incident = state.incident
    if incident is None:
        return None
    cause = cause_of(state, incident)
    return IncidentCard(
        incident_id=incident_id(state.lane, incident.number),
        severity="critical" if incident.severity == "critical" else "warning",
        opened_request=incident.opened_request,
        opened_at_ms=incident.opened_at_ms,
        cause_hint=cause.name,
        features_drifted=incident.features_drifted,
        features=feature_drifts(state, incident),
        scores=score_drifts(state, incident),
        by_effect=largest_effects(state, incident),
        causes=cause.evidence,
        evidence_request=incident.evidence_request,
    )
