"""Prometheus Alertmanager, by its API v2, which groups, inhibits and routes by labels.

[[notify.sinks]]
name = "alertmanager"
type = "alertmanager"
url = "http://alertmanager:9093"  # without /api/v2
allow = ["alertmanager"]  # private, and without TLS: both must be allowed
# secret_file = "/run/secrets/alertmanager"  # a bearer token, where a proxy asks for one

Labels: alertname=StreamInterp, story, severity, and of an incident tenant, model_id, hook_name, lane_id. All else is
an annotation: labels are an alert's identity, and must stay the same until it is resolved. Alertmanager knows no
acknowledgement; an acknowledged incident stays firing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.http_client import HttpClient, bearer_token
from stream_interp.notify.sinks.sink import SinkTools, required
from stream_interp.notify.sinks.text import headline, one_line, plain, safe_id, web_links
from stream_interp.records.alert import Severity
from stream_interp.records.envelope import rfc3339
from stream_interp.settings import SinkSettings

PATH = "/api/v2/alerts"
LABEL_CHARACTERS = 200
SUMMARY_CHARACTERS = 1_000
DESCRIPTION_CHARACTERS = 10_000
# Without an end Alertmanager resolves what is not repeated within five minutes, and silence is not recovery.
FIRING_MS = 30 * 86_400_000
TEST_MS = 300_000
OPEN: Sequence[Severity] = ("warning", "critical")  # what an incident can fire as; with `info` it is over


@dataclass(frozen=True)
class Alertmanager:
    """Posts a story as alerts that differ in severity, of which one at most is firing."""

    client: HttpClient

    async def send(self, notification: Notification) -> None:
        """Posts it. Raises SinkError."""
        if notification.phase == "acknowledged" and notification.alert is None:
            return  # without the incident's labels it would be another alert
        await self.client.post(msgspec.json.encode(alerts(notification)))

    async def close(self) -> None:
        """Holds nothing."""


def alerts(notification: Notification) -> list[dict[str, Any]]:
    """What is posted: the alert, and an end for those of its story that it takes the place of."""
    if notification.phase == "resolved":
        return [_alert(notification, severity, ends_ms=notification.at_ms) for severity in OPEN]
    firing_ms = TEST_MS if notification.kind == "test" else FIRING_MS
    told = _alert(notification, notification.severity, ends_ms=notification.at_ms + firing_ms)
    followed = notification.alert is not None and notification.alert.transition in ("escalated", "updated")
    replaced: Sequence[Severity] = ("warning",) if followed and notification.severity == "critical" else ()
    return [told, *(_alert(notification, severity, ends_ms=notification.at_ms) for severity in replaced)]


def _alert(notification: Notification, severity: Severity, ends_ms: int) -> dict[str, Any]:
    links = web_links(notification)
    return {
        "labels": labels(notification) | {"severity": severity},
        "annotations": {
            "summary": headline(notification, SUMMARY_CHARACTERS),
            "description": plain(notification.text, DESCRIPTION_CHARACTERS),
            "kind": notification.kind,
            "event_id": safe_id(notification.id, LABEL_CHARACTERS),
            **({"runbook_url": links["runbook"]} if "runbook" in links else {}),
        },
        "startsAt": rfc3339(min(notification.started_at_ms, notification.at_ms)),
        "endsAt": rfc3339(ends_ms),
        **({"generatorURL": links["ui"]} if "ui" in links else {}),
    }


def labels(notification: Notification) -> dict[str, str]:
    """Bounded in number and length, the same from opening to resolution, and never a feature's id."""
    named = {"alertname": "StreamInterp", "story": safe_id(notification.story, LABEL_CHARACTERS)}
    if notification.alert is not None:
        lane = notification.alert.lane
        named |= {
            "tenant": lane.tenant,
            "model_id": lane.model_id,
            "hook_name": lane.hook_name,
            "lane_id": lane.lane_id,
        }
    return {name: one_line(value, LABEL_CHARACTERS) for name, value in named.items()}


def make_alertmanager(settings: SinkSettings, tools: SinkTools) -> Alertmanager:
    """Needs `url`. Raises UsageError."""
    base = required(settings, "url", '"https://HOST:9093"').rstrip("/").removesuffix(PATH)
    return Alertmanager(HttpClient(settings, tools, base + PATH, bearer_token(settings)))
