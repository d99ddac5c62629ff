"""`ui`: the page for people, in the foreground."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.interrupts import stopped_by_signals
from stream_interp.cli.options import BootstrapOption, ConfigOption, SetOption, flags
from stream_interp.cli.output import notice, warn
from stream_interp.ui.feed import Feed
from stream_interp.ui.replays import Replays, replay_from
from stream_interp.ui.server import LISTEN, parse_listen, serving
from stream_interp.ui.web.app import Site, make_app, stale_after_ms


def ui(
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to serve the page.")] = LISTEN,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen where other machines reach it. The page has no login.")
    ] = False,
    server_name: Annotated[
        list[str] | None,
        typer.Option("--server-name", metavar="NAME", help="A name it is called by, such as the proxy's. May repeat."),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
) -> None:
    """Lanes, incidents and their story on one read-only web page. Stops cleanly on SIGTERM and Ctrl-C."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    host, port = parse_listen(listen, allow_remote=allow_remote)
    with (
        Feed(settings.kafka) as feed,
        stopped_by_signals() as stop,
        closing(Replays(replay_from(settings.kafka))) as replays,
    ):
        site = Site(
            feed, stale_after_ms(settings.status.interval_s), settings.notify.runbook_url, improve=replays.improve
        )
        with serving(make_app(site, server_name or ()), host, port) as url:
            notice(f"{url}/  read-only; Ctrl-C ends it", style="bold")
            if allow_remote:
                warn("other machines can reach this page, and it has no login")
            stop.wait()
