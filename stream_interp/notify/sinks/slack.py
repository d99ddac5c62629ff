"""A Slack channel, by an incoming webhook.

[[notify.sinks]]
name = "slack"
type = "slack"
secret_file = "/run/secrets/slack"  # holds https://hooks.slack.com/services/…: whoever knows it can post

All text goes as plain text with `&`, `<` and `>` escaped, so that no name can mention a channel, ping people or hide
the target of a link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.http_client import HttpClient
from stream_interp.notify.sinks.sink import SinkTools, secret
from stream_interp.notify.sinks.text import escape_html, headline, plain, web_links
from stream_interp.settings import SinkSettings

SECTION_CHARACTERS = 3_000  # Slack's limit of a text in a section, after escaping
TITLE_CHARACTERS = 300
MARKS = {"firing": "🔴", "acknowledged": "🟡", "resolved": "🟢"}


@dataclass(frozen=True)
class Slack:
    """Posts a title, the text and links."""

    client: HttpClient

    async def send(self, notification: Notification) -> None:
        """Posts it. Raises SinkError."""
        await self.client.post(msgspec.json.encode(message(notification)))

    async def close(self) -> None:
        """Holds nothing."""


def message(notification: Notification) -> dict[str, Any]:
    """The JSON that an incoming webhook takes."""
    title = escaped(f"{MARKS[notification.phase]} {headline(notification, TITLE_CHARACTERS)}", SECTION_CHARACTERS)
    blocks = [_section("plain_text", title)]
    if text := escaped(plain(notification.text, SECTION_CHARACTERS).strip(), SECTION_CHARACTERS):
        blocks.append(_section("plain_text", text))
    if links := " · ".join(_link(name, url) for name, url in web_links(notification).items()):
        blocks.append(_section("mrkdwn", links))
    return {"text": title, "blocks": blocks, "link_names": False, "unfurl_links": False, "unfurl_media": False}


def escaped(text: str, limit: int) -> str:
    """At most `limit` characters after escaping, with no entity cut in half."""
    whole = escape_html(text)
    return whole if len(whole) <= limit else re.sub(r"&[a-z]*$", "", whole[: limit - 1]) + "…"


def _section(kind: str, text: str) -> dict[str, Any]:
    inert = {"emoji": False} if kind == "plain_text" else {"verbatim": True}
    return {"type": "section", "text": {"type": kind, "text": text, **inert}}


def _link(name: str, url: str) -> str:
    return f"<{escape_html(url)}|{escape_html(name).replace('|', ' ')}>"


def make_slack(settings: SinkSettings, tools: SinkTools) -> Slack:
    """Needs the webhook's address, in `secret_file` or as `url`. Raises UsageError."""
    url = settings.url or secret(settings, "the address https://hooks.slack.com/services/…")
    return Slack(HttpClient(settings, tools, url))
