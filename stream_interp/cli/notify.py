"""`notify` and `notify test`."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.foreground import foreground
from stream_interp.cli.options import BootstrapOption, ConfigOption, HttpOption, SetOption, flags
from stream_interp.cli.output import notice, warn
from stream_interp.cli.proposals import sink_names
from stream_interp.errors import UsageError

SinkArgument = Annotated[
    str, typer.Argument(metavar="SINK", help="Name of an entry of [[notify.sinks]].", autocompletion=sink_names)
]


def run(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    http: HttpOption = None,
) -> None:
    """Alerts to people: every sink of [[notify.sinks]] hears of them at least once. Stops on SIGTERM and Ctrl-C.

    A sink is told of what happens from the moment it first appears.
    """
    from stream_interp.notify.process import Notify, notify_board

    settings, board = load_settings(config, flags(sets, bootstrap=bootstrap)), notify_board()
    if not settings.notify.sinks:
        warn("no [[notify.sinks]]: nobody will be told; `stream-interp config init` shows how to name one")
    with foreground(settings.log, "notify", http, [board]) as (say, stop):
        Notify(settings, say, board).run(stop)


def try_sink(sink: SinkArgument, config: ConfigOption = None, sets: SetOption = None) -> None:
    """Send a marked test alert to one sink, once, without Kafka."""
    from stream_interp.notify.sinks import SinkTools, make_sink
    from stream_interp.notify.telling import wording_of

    notify = load_settings(config, flags(sets)).notify
    found = next((settings for settings in notify.sinks if settings.name == sink), None)
    if found is None:
        names = ", ".join(settings.name for settings in notify.sinks) or "none; add [[notify.sinks]]"
        raise UsageError(f"no sink is named {sink!r}; expected one of: {names}")
    target, notification = make_sink(found, SinkTools()), wording_of(notify).of_test(sink, time.time_ns() // 1_000_000)

    async def send() -> None:
        try:
            await target.send(notification)
        finally:
            await target.close()

    asyncio.run(send())
    notice(f"{sink}: delivered, id {notification.id}")
