"""What operators ask of a lane, where its marker lies in the log: another baseline, an end, a new start.

As pure and as replayable as `step`.
"""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from stream_interp.detect.alerts import TRAFFIC_MIX, incident_alert, incident_id, lane_alert
from stream_interp.detect.armed.canary import Canary
from stream_interp.detect.conditions import sound_again
from stream_interp.detect.incident import Incident
from stream_interp.detect.rebaseline import anchor_beside, rebaselined, with_creep
from stream_interp.detect.state import Baseline, DetectSettings, LaneState, no_scores
from stream_interp.detect.step import CANARY, NOT_STATIONARY, StepResult, begin_evidence
from stream_interp.records.alert import ENDS, Alert, Position
from stream_interp.records.control import Marker, Versioned, read_baseline
from stream_interp.settings import DriftSettings


def apply_baseline(state: LaneState, baseline: Versioned, drift: DriftSettings, position: Position) -> StepResult:
    """A marker names a baseline: the lane is armed with it here. One that is not newer changes nothing.

    An open incident ends: what it says was judged by the baseline before.
    """
    header, arrays = read_baseline(baseline)
    if not supersedes(state, header.version, header.projector_version):
        return StepResult(replace(state, position=position))
    manifest = baseline.manifest
    note = f"baseline {header.version} by {manifest.author or 'unknown'} (as claimed): {manifest.reason}"
    settings = structs.replace(state.settings, drift=drift)
    after, alerts = _all_ended(replace(state, settings=settings, position=position), note, header.version)
    armed, crept = rebaselined(after, Baseline(header, arrays), max(state.closed_at_ms, header.version))
    return StepResult(armed, (*alerts, *crept))


def resolve(state: LaneState, marker: Marker, position: Position) -> StepResult:
    """An operator ends the open incident; all evidence starts anew. Void where another incident is open, or none."""
    after = replace(state, position=position)
    if state.incident is None or state.tests is None or marker.incident_id != open_incident_id(state):
        return StepResult(after)
    note = f"resolved by {marker.author or 'unknown'} (as claimed): {marker.reason}"
    alert = _ended(after, state.incident, note, marker.version)
    return StepResult(begin_evidence(after), (alert,))


def relearn(state: LaneState, marker: Marker, position: Position) -> StepResult:
    """An operator has the lane learn again from its next windows; what is open ends, the old versions stay on Kafka."""
    if marker.version <= shape_version(state):
        return StepResult(replace(state, position=position))
    note = f"relearn by {marker.author or 'unknown'} (as claimed): {marker.reason}"
    after, alerts = _all_ended(replace(state, position=position), note, marker.version)
    held = state.settings
    settings = DetectSettings(
        drift=marker.drift or held.drift,
        baseline_requests=marker.baseline_requests or held.baseline_requests,
        unit=marker.unit or held.unit,
    )
    fresh = replace(
        after, phase="fit", learned=None, projector=None, baseline=None, tests=None, evidence=None, incident=None,
        anchor=anchor_beside(state), requests=0, weeks=0.0, relearned=marker.version, uncounted_since_ms=0,
        health_now=None, opinions={}, recent_scores=no_scores(), canary=Canary(), settings=settings,
    )  # fmt: skip
    return StepResult(fresh, alerts)


def approve(state: LaneState, marker: Marker, position: Position) -> StepResult:
    """An operator makes the baseline in effect the lane's anchor. Void where it is not the one that is named."""
    after = replace(state, position=position)
    if not can_be_approved(state, marker.baseline_version):
        return StepResult(after)
    approved, alerts = with_creep(replace(after, anchor=None), None, max(state.closed_at_ms, marker.version))
    note = f"approved by {marker.author or 'unknown'} (as claimed): {marker.reason}"
    return StepResult(approved, tuple(structs.replace(alert, note=note) for alert in alerts))


def can_be_approved(state: LaneState, version: int) -> bool:
    """Whether this baseline is in effect, and is not the anchor already."""
    return state.baseline is not None and state.baseline.header.version == version and state.anchor is not None


def shape_version(state: LaneState) -> int:
    """Of the lane's projector, or of the order to learn again that came after it; -1 without either.

    ENCODE follows the newest of the two on `interp.control`. A baseline's own version must not count here: it is the
    time at which learning ended, and an order given shortly before would be void here and carried out there.
    """
    return max(state.projector.version if state.projector else -1, state.relearned or -1)


def supersedes(state: LaneState, version: int, projector_version: int) -> bool:
    """Whether a baseline comes after what is in effect: by its projector, and by itself where that is the same."""
    held = state.projector.version if state.projector else -1
    if projector_version == held:
        return version > (state.baseline.header.version if state.baseline else -1)
    return projector_version > held and projector_version >= state.relearned


def open_incident_id(state: LaneState) -> str:
    """Empty where no incident is open."""
    return incident_id(state.lane, state.incident.number) if state.incident else ""


def _all_ended(state: LaneState, note: str, version: int) -> tuple[LaneState, tuple[Alert, ...]]:
    """The fault, the refusal, the incident and the note of a lane that begins anew."""
    at_ms = max(state.closed_at_ms, version)
    after, alerts = sound_again(state, at_ms)
    if after.phase == "refused":
        alerts = (*alerts, lane_alert(after, "integrity_restored", "info", at_ms, NOT_STATIONARY))
    if after.incident is not None:
        alerts = (*alerts, _ended(after, after.incident, note, version))
    if after.canary.deaf:
        after = replace(after, canary=Canary())
        alerts = (*alerts, lane_alert(after, "integrity_restored", "info", at_ms, CANARY))
    if after.traffic_note is not None:
        after = replace(after, traffic_note=None)
        alerts = (*alerts, lane_alert(after, "note_ended", "info", at_ms, TRAFFIC_MIX))
    return after, alerts


def _ended(state: LaneState, incident: Incident, note: str, version: int) -> Alert:
    """A version is the time of its order: the incident did not end with the window before it."""
    alert = incident_alert(state, incident, "resolved", note=note)
    return structs.replace(alert, at_ms=max(alert.at_ms, version))


def stories_after(stories: dict[str, Alert], alerts: tuple[Alert, ...]) -> dict[str, Alert]:
    """The last alert of everything that is still open."""
    after = dict(stories)
    for alert in alerts:
        after.pop(alert.incident_id, None)
        if alert.transition not in ENDS:
            after[alert.incident_id] = alert
    return after
