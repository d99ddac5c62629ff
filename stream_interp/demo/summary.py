"""What the scene ended with, as the one object of `demo --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from stream_interp.demo import workers
from stream_interp.demo.credit_model import HOOK
from stream_interp.demo.scene import MODEL_ID, Scene
from stream_interp.demo.table import TOP_FEATURES
from stream_interp.demo.verdict import Summary, failures, findings
from stream_interp.records.status import IncidentCard


def summarise(scene: Scene, seed: int, status_before: str) -> Summary:
    """Reads the status once more and judges; `seconds_total` is the caller's to fill in."""
    traffic, watch, prepared = scene.traffic, scene.watch, scene.prepared
    pending = scene.producer.flush()
    not_delivered = pending + sum(scene.producer.counts.dropped.values())
    status_after = watch.refresh().state
    found = findings(watch.alerts, traffic.planted_at_request)
    short = failures(found, status_before, status_after, not_delivered)
    lane = watch.lane
    return Summary(
        passed=not short,
        failures=short,
        planted_at_request=traffic.planted_at_request,
        first_alert_request=found.first_alert_request,
        requests_to_alert=found.requests_to_alert,
        seconds_to_alert=round(found.first.at_s - traffic.planted_at_s, 3) if found.first else None,
        false_alarms=found.false_alarms,
        status_before=status_before,
        status_after=status_after,
        **_incident(lane.incident if lane else None, prepared.meanings),
        coverage=structs.asdict(lane.coverage) if lane else {},
        lane_id=lane.lane.lane_id if lane else None,
        model_id=MODEL_ID,
        hook_name=HOOK,
        seed=seed,
        requests=traffic.sent,
        requests_not_delivered=not_delivered,
        baseline_requests=workers.BASELINE_REQUESTS,
        model_accuracy=round(prepared.accuracy, 4),
        explained_variance=round(prepared.explained_variance, 4),
    )


def _incident(incident: IncidentCard | None, meanings: Sequence[str]) -> dict[str, Any]:
    if incident is None:
        return {}
    return {
        "severity": incident.severity,
        "cause_hint": incident.cause_hint,
        "features_drifted": incident.features_drifted,
        "top_features": [
            {
                "feature": drift.feature,
                "meaning": meanings[drift.feature],
                "direction": drift.direction,
                "rate_baseline": drift.rate_baseline,
                "rate_now": drift.rate_now,
            }
            for drift in incident.features[:TOP_FEATURES]
        ],
    }
