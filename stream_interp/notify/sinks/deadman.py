"""A dead man's switch: calls an address again and again, so that a watcher outside notices when NOTIFY dies.

[[notify.sinks]]
name = "watcher"
type = "deadman"
url = "https://hc-ping.com/…"  # GET; any service that raises an alarm when the calls stop
interval_s = 60
# secret_file = "/run/secrets/watcher"  # a bearer token, where the service asks for one
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.http_client import HttpClient, bearer_token
from stream_interp.notify.sinks.sink import SinkTools, required
from stream_interp.settings import SinkSettings


@dataclass(frozen=True)
class DeadMan:
    """Says that NOTIFY lives, and nothing of any incident."""

    client: HttpClient

    async def send(self, notification: Notification) -> None:
        """Only a test is answered, by a call; all else is none of its business. Raises SinkError."""
        if notification.kind == "test":
            await self.ping()

    async def ping(self) -> None:
        """Calls the address. Raises SinkError."""
        await self.client.get()

    async def close(self) -> None:
        """Holds nothing."""


def make_deadman(settings: SinkSettings, tools: SinkTools) -> DeadMan:
    """Needs `url`. Raises UsageError."""
    url = required(settings, "url", '"https://HOST/PATH"')
    return DeadMan(HttpClient(settings, tools, url, bearer_token(settings)))
