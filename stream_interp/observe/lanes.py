"""Lanes as readings: the worst first, and no more than a scrape can carry. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from stream_interp.observe.board import Reading
from stream_interp.records.status import WORST_FIRST, Health, Status

MAX_LANES = 1_000
MAX_REASONS = 16  # of one lane; they come from windows, which others may write
SEVERITIES = ("warning", "critical")

_Row = tuple[str, float | None, *tuple[str, ...]]  # metric without `lane_`, value if there is one, further labels


def lane_readings(statuses: Iterable[Status]) -> Iterator[Reading]:
    """Of all lanes how many are in which state; of the 1,000 worst, everything."""
    ranked = sorted(statuses, key=lambda s: (WORST_FIRST.index(s.state), s.lane.lane_id))
    states = Counter[str](status.state for status in ranked)
    open_now = Counter[str](status.incident.severity for status in ranked if status.incident)
    yield from (Reading("lanes", states[state], (state,)) for state in WORST_FIRST)
    yield from (Reading("incidents_open", open_now[severity], (severity,)) for severity in SEVERITIES)
    yield Reading("lanes_not_exported", max(0, len(ranked) - MAX_LANES))
    for status in ranked[:MAX_LANES]:
        lane_id = status.lane.lane_id
        for metric, value, *labels in _of_lane(status):
            if value is not None:
                yield Reading(f"lane_{metric}", value, (lane_id, *labels))


def _of_lane(s: Status) -> Iterator[_Row]:
    lane = s.lane
    yield "info", 1, lane.tenant, lane.model_id, lane.model_revision, lane.hook_name, lane.sae_fingerprint[:12]
    yield from (("state", s.state == state, state) for state in WORST_FIRST)
    yield "severity", len(WORST_FIRST) - 1 - WORST_FIRST.index(s.state)
    yield "status_as_of_timestamp_seconds", s.as_of_ms / 1000
    yield "window_closed_timestamp_seconds", s.closed_at_ms / 1000
    yield "lag_age_seconds", s.lag_age_s
    yield "silenced", s.silence is not None and (not s.silence.until_ms or s.silence.until_ms > s.as_of_ms)
    yield "baseline_timestamp_seconds", s.baseline.version / 1000 if s.baseline else None
    yield from _coverage(s)
    yield from _health(s.health)
    yield from _incident(s)


def _coverage(s: Status) -> Iterator[_Row]:
    coverage = s.coverage
    yield "requests_seen", coverage.requests_seen
    yield "requests_counted", coverage.requests_counted
    for reason in sorted(coverage.reasons)[:MAX_REASONS]:
        yield "requests_not_counted", coverage.reasons[reason], reason
    yield "features_armed", coverage.features_armed
    yield "features_not_covered", coverage.features_not_covered


def _health(health: Health) -> Iterator[_Row]:
    for signal in ("explained_variance", "l0", "norm"):
        yield signal, getattr(health, signal)
        yield f"{signal}_baseline", getattr(health, f"{signal}_baseline")


def _incident(s: Status) -> Iterator[_Row]:
    incident = s.incident
    yield from (("incident_open", bool(incident and incident.severity == x), x) for x in SEVERITIES)
    yield "incident_acknowledged", bool(incident and incident.ack)
    yield "incident_features", incident.features_drifted if incident else 0
