"""PagerDuty, by Events API v2: one PagerDuty incident for each story.

[[notify.sinks]]
name = "pagerduty"
type = "pagerduty"
secret_file = "/run/secrets/pagerduty"  # the integration key of a service's Events API v2 integration
# url = "https://events.eu.pagerduty.com/v2/enqueue"  # accounts in the EU
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.http_client import HttpClient
from stream_interp.notify.sinks.sink import SinkTools, secret
from stream_interp.notify.sinks.text import headline, one_line, plain, safe_id, web_links
from stream_interp.records.envelope import rfc3339
from stream_interp.settings import SinkSettings

URL = "https://events.pagerduty.com/v2/enqueue"
ACTIONS = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}
SEVERITIES = {"critical": "critical", "warning": "warning", "info": "info"}
DEDUP_KEY_CHARACTERS = 255
SUMMARY_CHARACTERS = 1_024
NAME_CHARACTERS = 255
TEXT_CHARACTERS = 10_000


@dataclass(frozen=True)
class PagerDuty:
    """Triggers, acknowledges and resolves."""

    client: HttpClient
    routing_key: str

    async def send(self, notification: Notification) -> None:
        """Posts one event. Raises SinkError."""
        await self.client.post(msgspec.json.encode({"routing_key": self.routing_key, **event(notification)}))

    async def close(self) -> None:
        """Holds nothing."""


def event(notification: Notification) -> dict[str, Any]:
    """The event, without its key."""
    links = web_links(notification)
    return {
        "event_action": ACTIONS[notification.phase],
        "dedup_key": safe_id(notification.story, DEDUP_KEY_CHARACTERS),
        "client": "stream_interp",
        **({"client_url": links["ui"]} if "ui" in links else {}),
        "links": [{"href": url, "text": name} for name, url in links.items()],
        "payload": _payload(notification),
    }


def _payload(notification: Notification) -> dict[str, Any]:
    lane = notification.alert.lane if notification.alert else None
    named = {"source": "stream_interp"}
    if lane and notification.alert:
        site = f"{lane.tenant}/{lane.model_id}"
        named = {"source": site, "component": lane.hook_name, "group": site, "class": notification.alert.cause_hint}
    return {
        "summary": headline(notification, SUMMARY_CHARACTERS),
        "severity": SEVERITIES[notification.severity],
        "timestamp": rfc3339(notification.at_ms),
        **{name: one_line(value, NAME_CHARACTERS) for name, value in named.items() if value},
        "custom_details": {
            "text": plain(notification.text, TEXT_CHARACTERS),
            "kind": notification.kind,
            "event_id": safe_id(notification.id, NAME_CHARACTERS),
            "events": len(notification.event_ids),
        },
    }


def make_pagerduty(settings: SinkSettings, tools: SinkTools) -> PagerDuty:
    """Needs `secret_file`. Raises UsageError."""
    routing_key = secret(settings, "the integration key").strip()
    return PagerDuty(HttpClient(settings, tools, settings.url or URL, secrets=[routing_key]), routing_key)
