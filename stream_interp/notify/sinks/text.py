"""Untrusted text made inert and short. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from stream_interp.notify.notification import Notification
from stream_interp.records.lane import digest
from stream_interp.records.text import inert

LATEST_MS = 253_402_300_799_999  # the end of the year 9999: what the calendar can show

_WEB = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
LINK_CHARACTERS = 2_000


def plain(text: str, limit: int) -> str:
    """At most `limit` characters, inert but for newline and tab."""
    return inert(text.replace("\r\n", "\n"), limit, kept="\n\t")


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters, inert, on one line: each run of white space is one space."""
    return inert(" ".join(text[: 4 * limit].split()), limit)


def short(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape_html(text: str) -> str:
    """`&`, `<` and `>` as entities: no tag, no link, no mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def headline(notification: Notification, limit: int) -> str:
    """Severity and title on one line, each once."""
    title, severity = one_line(notification.title, limit), f"{notification.severity}: "
    return short(severity + title.removeprefix(severity), limit)


def calendar(at_ms: int) -> datetime:
    """A time of Unix epoch milliseconds in UTC, in whole seconds; what no calendar shows becomes its nearest end."""
    return datetime.fromtimestamp(min(max(at_ms, 0), LATEST_MS) // 1000, UTC)


def moment(at_ms: int) -> str:
    """A time of Unix epoch milliseconds as people read it: `2026-01-31 09:30:00 UTC`."""
    return calendar(at_ms).strftime("%Y-%m-%d %H:%M:%S UTC")


def is_web(url: str) -> bool:
    """A browser can open it; a path of the source tree it cannot, nor what is no valid URI."""
    return len(url) <= LINK_CHARACTERS and _WEB.fullmatch(url) is not None


def web_links(notification: Notification) -> dict[str, str]:
    """Its links that a browser can open, by name."""
    return {one_line(name, 40): url for name, url in notification.links.items() if is_web(url)}


def safe_id(text: str, limit: int) -> str:
    """An id as it is where letters, digits and `_:/-` make it up and it is short enough; else its hash.

    No full stop: Standard Webhooks signs `id.timestamp.body`, and an id with one could be read as another's parts.
    """
    return text if re.fullmatch(r"[A-Za-z0-9_:/-]+", text) and len(text) <= limit else digest(plain(text, len(text)))
