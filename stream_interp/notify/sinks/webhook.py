"""Any HTTPS receiver, signed by the Standard Webhooks specification.

[[notify.sinks]]
name = "hook"
type = "webhook"
url = "https://example.com/stream-interp"
secret_file = "/run/secrets/webhook"  # one secret a line, `whsec_` and 24 to 64 bytes in base64; all of them sign
# allow = ["10.0.0.0/8", "receiver.internal"]  # private hosts and plain http are refused unless named here
# timeout_s = 10

The body is `{"type": "interp.notification.v1", "timestamp": RFC 3339, "data": {…}}` with the notification as data. A
receiver drops repeats by `webhook-id`, checks `webhook-timestamp` against its clock, and accepts any `v1` signature:
HMAC-SHA256 of `id.timestamp.body`. To change the secret, put the new one above the old one until receivers know it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import structs

from stream_interp.errors import UsageError
from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.http_client import HttpClient
from stream_interp.notify.sinks.sink import SinkTools, required, secret, where
from stream_interp.notify.sinks.text import plain, safe_id
from stream_interp.records.envelope import rfc3339
from stream_interp.settings import SinkSettings

BODY_TYPE = "interp.notification.v1"
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
TEXT_CHARACTERS = 4_000  # of any text in the body; the specification asks for small bodies
ID_CHARACTERS = 200
MAX_IDS = 500


@dataclass(frozen=True)
class Webhook:
    """Posts the whole notification as JSON."""

    client: HttpClient
    keys: tuple[bytes, ...]
    tools: SinkTools

    async def send(self, notification: Notification) -> None:
        """Posts it, signed now. Raises SinkError."""
        content = body(notification)
        await self.client.post(content, signed(notification.id, int(self.tools.now_s()), content, self.keys))

    async def close(self) -> None:
        """Holds nothing."""


def body(notification: Notification) -> bytes:
    """The same bytes on every try. Of a digest's or a long outage's events the newest `MAX_IDS` are named."""
    told = structs.replace(notification, event_ids=notification.event_ids[-MAX_IDS:])
    data = {**_inert(msgspec.to_builtins(told)), "id": safe_id(notification.id, ID_CHARACTERS)}
    return msgspec.json.encode({"type": BODY_TYPE, "timestamp": rfc3339(notification.at_ms), "data": data})


def signed(notification_id: str, now_s: int, content: bytes, keys: tuple[bytes, ...]) -> dict[str, str]:
    """The three headers of Standard Webhooks, one signature for each live key."""
    name = safe_id(notification_id, ID_CHARACTERS)
    told = f"{name}.{now_s}.".encode() + content
    signatures = [base64.b64encode(hmac.digest(key, told, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": name,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def read_keys(lines: str, setting: str) -> tuple[bytes, ...]:
    """The keys of a secret file. Raises UsageError, which names a bad line by number and never shows it."""
    numbered = [(n, line.strip()) for n, line in enumerate(lines.splitlines(), 1) if line.strip()]
    return tuple(_key(line, f"{setting}, line {n}") for n, line in numbered)


def _key(line: str, at: str) -> bytes:
    try:
        key = base64.b64decode(line.removeprefix(PREFIX), validate=True) if line.startswith(PREFIX) else b""
    except ValueError:
        key = b""
    if len(key) not in KEY_BYTES:
        raise UsageError(f'{at}: expected "{PREFIX}" and {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes in base64')
    return key


def _inert(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value, TEXT_CHARACTERS)
    if isinstance(value, list):
        return [_inert(entry) for entry in value]
    if isinstance(value, dict):
        return {_inert(name): _inert(entry) for name, entry in value.items()}
    return value


def make_webhook(settings: SinkSettings, tools: SinkTools) -> Webhook:
    """Needs `url` and `secret_file`. Raises UsageError."""
    client = HttpClient(settings, tools, required(settings, "url", '"https://HOST/PATH"'))
    keys = read_keys(secret(settings, "whsec_… secrets, one a line"), f"{where(settings)}.secret_file")
    return Webhook(client, keys, tools)
