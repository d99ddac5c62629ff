"""One line per notification on standard output, for a terminal or a container's log.

[[notify.sinks]]
name = "screen"
type = "console"
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.sink import SinkError, SinkTools
from stream_interp.notify.sinks.text import one_line
from stream_interp.records.envelope import rfc3339
from stream_interp.settings import SinkSettings

LINE_CHARACTERS = 2_000


@dataclass(frozen=True)
class Console:
    """Writes lines; control characters, and so terminal escapes, are shown as text."""

    tools: SinkTools

    async def send(self, notification: Notification) -> None:
        """Writes one line. Raises SinkError."""
        try:
            self.tools.write_line(line(notification))
        except OSError as error:
            raise SinkError(f"cannot write to the console: {error.strerror}", retry=True) from None

    async def close(self) -> None:
        """Holds nothing."""


def line(notification: Notification) -> str:
    """Time, severity, phase, title, text and id on one line."""
    said = one_line(f"{notification.title} | {notification.text}", LINE_CHARACTERS)
    head = f"{rfc3339(notification.at_ms)} {notification.severity} {notification.phase} {notification.kind}"
    return f"{head} {said} id={one_line(notification.id, 100)}"


def make_console(settings: SinkSettings, tools: SinkTools) -> Console:
    """A console needs no settings."""
    return Console(tools)
