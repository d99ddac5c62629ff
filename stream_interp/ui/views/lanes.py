"""What a reader sees of one lane: its answer, judged by the age of its status, and the row of it."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from stream_interp.records.alert import Said
from stream_interp.records.lane import NO_SAE, Lane
from stream_interp.records.status import Coverage, IncidentCard, Status
from stream_interp.status.judge import ANSWERS_WORST_FIRST, Answer
from stream_interp.ui.model.model import Model


class Now(NamedTuple):
    """When the page is looked at, Unix epoch milliseconds, and how old a status may be."""

    ms: int
    stale_after_ms: int


class LaneRow(Struct, frozen=True, kw_only=True):
    """One lane at a glance. `state` is `unknown` where the status is missing or stale, whatever it said."""

    lane_id: str
    lane: Lane
    state: Answer
    reason: str
    age_s: float | None
    tests: str  # which tests look at it
    requests: int
    learning: str
    coverage: Coverage
    lag_age_s: float | None
    incident: IncidentCard | None
    silence: Said | None
    labels: str


def lane_rows(model: Model, now: Now) -> list[LaneRow]:
    """Every lane that any topic speaks of, worst first; of equal ones those with an unacknowledged incident first."""
    rows = [lane_row(lane, model.statuses.get(lane_id), now) for lane_id, lane in model.lanes().items()]
    return sorted(rows, key=_worst_first)


def _worst_first(row: LaneRow) -> tuple[int, bool, int, Lane]:
    rank = ANSWERS_WORST_FIRST.index(row.state)
    acked = row.incident is not None and row.incident.ack is not None
    return rank, acked, -(row.incident.opened_at_ms if row.incident else 0), row.lane


def lane_row(lane: Lane, status: Status | None, now: Now) -> LaneRow:
    """The row of a lane, from its last status."""
    state, reason = answer(status, now)
    return LaneRow(
        lane_id=lane.lane_id, lane=lane, state=state, reason=reason,
        age_s=max(0, now.ms - status.as_of_ms) / 1000 if status else None, tests=_tests(lane, status),
        requests=status.requests if status else 0, learning=status.learning if status else "",
        coverage=status.coverage if status else Coverage(), lag_age_s=status.lag_age_s if status else None,
        incident=status.incident if status else None, silence=in_force(status.silence if status else None, now.ms),
        labels=status.labels if status else "",
    )  # fmt: skip


def answer(status: Status | None, now: Now) -> tuple[Answer, str]:
    """The state and why. A status that nobody vouches for any more is `unknown`, never ok."""
    if status is None:
        return "unknown", "no status: is DETECT running, and on which partitions?"
    age_ms = now.ms - status.as_of_ms
    if age_ms > now.stale_after_ms:
        return "unknown", f"last status {age_ms / 1000:.0f} s old, it was {status.state}: is DETECT running?"
    if age_ms < -now.stale_after_ms:
        return "unknown", f"last status from {-age_ms / 1000:.0f} s ahead of this clock: do the clocks agree?"
    is_cause = status.incident is not None and status.reason == status.incident.cause_hint
    return status.state, status.reason.replace("_", " ") if is_cause else status.reason


def in_force(said: Said | None, now_ms: int) -> Said | None:
    """What was said, unless its time is over."""
    return None if said is not None and 0 < said.until_ms <= now_ms else said


def _tests(lane: Lane, status: Status | None) -> str:
    if status is not None and status.coverage.features_armed:
        return "T2"  # every feature
    return "T0" if lane.sae_fingerprint == NO_SAE else "T2 learning" if status and status.learning else "–"
