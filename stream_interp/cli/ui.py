"""`ui`: the page for people, in the foreground."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.foreground import foreground
from stream_interp.cli.options import BootstrapOption, ConfigOption, HttpOption, SetOption, flags
from stream_interp.observe.http import routes
from stream_interp.ui.feed import Feed, ui_board
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
    http: HttpOption = None,
) -> None:
    """Lanes, incidents and their story on one read-only web page. Stops cleanly on SIGTERM and Ctrl-C."""
    settings, board = load_settings(config, flags(sets, bootstrap=bootstrap)), ui_board()
    host, port = parse_listen(listen, allow_remote=allow_remote)
    with (
        foreground(settings.log, "ui", http, [board]) as (say, stop),
        Feed(settings.kafka, board) as feed,
        closing(Replays(replay_from(settings.kafka))) as replays,
    ):
        stale_ms = stale_after_ms(settings.status.interval_s)
        site = Site(feed, stale_ms, settings.notify.runbook_url, improve=replays.improve)
        with serving(make_app(site, server_name or (), routes([board])), host, port) as url:
            say(f"{url}/ is the page; read-only, no login{'; other machines can reach it' if allow_remote else ''}")
            stop.wait()
