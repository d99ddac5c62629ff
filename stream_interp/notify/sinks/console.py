"""A few lines for each notification on standard output, for a terminal or a container's log.

[[notify.sinks]]
name = "screen"
type = "console"
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.sink import SinkError, SinkTools
from stream_interp.notify.sinks.text import headline, moment, one_line, web_links
from stream_interp.settings import SinkSettings

LINE_CHARACTERS = 2_000
TEXT_LINES = 30


@dataclass(frozen=True)
class Console:
    """Writes lines; control characters, and so terminal escapes, are shown as text."""

    tools: SinkTools

    async def send(self, notification: Notification) -> None:
        """Writes its lines at once. Raises SinkError."""
        try:
            self.tools.write_line("\n".join(lines(notification)))
        except OSError as error:
            raise SinkError(f"cannot write to the console: {error.strerror}", retry=True) from None

    async def close(self) -> None:
        """Holds nothing."""


def lines(notification: Notification) -> list[str]:
    """Time and title; then, indented so that no text can pass for another notification, the text, links and id."""
    said = [one_line(text, LINE_CHARACTERS) for text in notification.text.split("\n")[:TEXT_LINES]]
    links = [f"{name}: {url}" for name, url in web_links(notification).items()]
    rest = [*said, *links, f"id {one_line(notification.id, 100)}"]
    return [f"{moment(notification.at_ms)} {headline(notification, LINE_CHARACTERS)}", *(f"  {text}" for text in rest)]


def make_console(settings: SinkSettings, tools: SinkTools) -> Console:
    """A console needs no settings."""
    return Console(tools)
