"""Did the demo show what it promises? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct, field

from stream_interp.demo.watch import Heard, applications_behind


class Summary(Struct, frozen=True, kw_only=True):
    """The one object of `demo --json`. Requests are applications, counted from the first that was streamed.

    Attributes:
        planted_at_request: the first application after the market shift; None where it was not planted.
        first_alert_request: the last application behind the first alert after it; None where none came.
        false_alarms: alerts whose window had closed before the shift, or that tell of no incident.
        seconds_to_alert: from the first shifted application to its alert in the subscriber's hands.
        failures: what fell short; empty where `passed`.
    """

    schema_version: Literal[1] = 1
    passed: bool
    planted_at_request: int | None
    first_alert_request: int | None
    requests_to_alert: int | None
    seconds_to_alert: float | None
    false_alarms: int
    status_before: str
    status_after: str
    severity: str | None = None
    cause_hint: str | None = None
    features_drifted: int = 0
    top_features: list[dict[str, Any]] = field(default_factory=list)
    lane_id: str | None = None
    model_id: str
    hook_name: str
    seed: int
    requests: int
    requests_not_delivered: int
    baseline_requests: int
    coverage: dict[str, Any] = field(default_factory=dict)
    model_accuracy: float
    explained_variance: float
    seconds_total: float = 0.0
    failures: list[str]


class Findings(Struct, frozen=True, kw_only=True):
    """The part of the summary that follows from the alerts."""

    first: Heard | None
    first_alert_request: int | None
    requests_to_alert: int | None  # counting the first shifted application as the first
    false_alarms: int


def findings(alerts: Sequence[Heard], planted_at_request: int | None) -> Findings:
    """Sorts alerts by the application that they were raised at, not by when they were heard."""
    after = [
        (heard, request)
        for heard in alerts
        if (request := applications_behind(heard.alert)) is not None
        and planted_at_request is not None
        and request >= planted_at_request
    ]
    false_alarms = len(alerts) - len(after)
    if not after or planted_at_request is None:
        return Findings(first=None, first_alert_request=None, requests_to_alert=None, false_alarms=false_alarms)
    first, request = after[0]
    return Findings(
        first=first,
        first_alert_request=request,
        requests_to_alert=request - planted_at_request + 1,
        false_alarms=false_alarms,
    )


def failures(found: Findings, status_before: str, status_after: str, not_delivered: int) -> list[str]:
    """What fell short, in sentences; empty where the demo showed what it promises."""
    checks = {
        f"alerts before the shift: {found.false_alarms}, expected none": found.false_alarms > 0,
        f"the status before the shift was {status_before}, expected ok": status_before != "ok",
        "no alert after the shift": found.first is None,
        f"the status after the shift was {status_after}, expected critical": status_after != "critical",
        f"applications that did not reach Kafka: {not_delivered}, so the count is off": not_delivered > 0,
    }
    return [sentence for sentence, is_so in checks.items() if is_so]
