"""The table of sinks: adding one is a file here and a line in `SINKS`; the contract suite picks it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from stream_interp.errors import UsageError
from stream_interp.notify.sinks.alertmanager import make_alertmanager
from stream_interp.notify.sinks.console import make_console
from stream_interp.notify.sinks.deadman import make_deadman
from stream_interp.notify.sinks.email import make_email
from stream_interp.notify.sinks.pagerduty import make_pagerduty
from stream_interp.notify.sinks.sink import Pinger, Sink, SinkError, SinkTools, where
from stream_interp.notify.sinks.slack import make_slack
from stream_interp.notify.sinks.webhook import make_webhook
from stream_interp.settings import SinkSettings

__all__ = ["SINKS", "Pinger", "Sink", "SinkError", "SinkTools", "make_sink"]

SINKS: Mapping[str, Callable[[SinkSettings, SinkTools], Sink]] = MappingProxyType(
    {
        "console": make_console,
        "webhook": make_webhook,
        "alertmanager": make_alertmanager,
        "slack": make_slack,
        "pagerduty": make_pagerduty,
        "email": make_email,
        "deadman": make_deadman,
    }
)


def make_sink(settings: SinkSettings, tools: SinkTools) -> Sink:
    """The sink of one `[[notify.sinks]]` entry.

    Raises:
        UsageError: an unknown type, or a setting that this type needs is missing or wrong.
    """
    factory = SINKS.get(settings.type)
    if factory is None:
        raise UsageError(f"{where(settings)}: unknown type {settings.type!r}; expected one of {', '.join(SINKS)}")
    return factory(settings, tools)
