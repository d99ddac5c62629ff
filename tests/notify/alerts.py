"""Alerts and annotations for tests."""

from __future__ import annotations

from msgspec import structs

from stream_interp.notify.story import Place
from stream_interp.records.alert import Alert, Position
from stream_interp.records.annotation import Annotation
from stream_interp.records.lane import Lane, digest

LANE = Lane(model_id="credit-risk", hook_name="hidden")
START_MS = 1_800_000_000_000
SEVERITY = {"seeing": "info", "integrity_restored": "info", "blind": "critical", "integrity_error": "critical"}


def alert(
    transition: str = "opened", incident: str = "i1", at_s: float = 0.0, lane: Lane = LANE, **more: object
) -> Alert:
    """One transition, `at_s` seconds after START_MS; its id follows from what it is."""
    at_ms = START_MS + round(at_s * 1000)
    severity = SEVERITY.get(transition, "critical" if transition == "escalated" else "warning")
    base = Alert(
        event_id=digest(incident, transition, at_ms)[:32], lane=lane, incident_id=incident,
        transition=transition, severity=severity, status=severity, cause_hint="data_shift", at_ms=at_ms,  # type: ignore[arg-type]
        position=Position(partition=0, offset=at_ms - START_MS),
    )  # fmt: skip
    return structs.replace(base, **more)


def annotation(kind: str, at_s: float, until_s: float = 0.0, incident: str = "", lane: Lane = LANE) -> Annotation:
    """What an operator said."""
    at_ms = START_MS + round(at_s * 1000)
    return Annotation(
        event_id=digest(kind, lane.lane_id, incident, at_ms)[:32], lane=lane, kind=kind, incident_id=incident,  # type: ignore[arg-type]
        author="ann", reason="known", at_ms=at_ms, until_ms=START_MS + round(until_s * 1000) if until_s else 0,
    )  # fmt: skip


def place(offset: int, at_s: float) -> Place:
    """Where it lies in the log."""
    return Place(0, offset, START_MS + round(at_s * 1000))
