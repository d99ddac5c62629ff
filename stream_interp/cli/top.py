"""`top`: the fleet at a glance in a terminal."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.live import Live

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.interrupts import stopped_by_signals
from stream_interp.cli.keys import keys
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, out
from stream_interp.errors import DependencyUnreachable
from stream_interp.settings import Settings
from stream_interp.ui.feed import Feed
from stream_interp.ui.screen import last_first, screen
from stream_interp.ui.views.fleet import Fleet, fleet
from stream_interp.ui.views.lanes import Now
from stream_interp.ui.web.app import stale_after_ms

ALL = 1_000_000  # lanes in one page
_CATCH_UP_S = 60.0
_STEPS = {"j": 1, "k": -1, "\x1b[B": 1, "\x1b[A": -1, " ": 10, "\x1b[6~": 10, "\x1b[5~": -10, "g": -ALL, "G": ALL}


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once and end.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, metavar="S", help="Seconds between two screens.")] = 2.0,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Lanes worst first, open incidents and processes; q ends, j and k scroll. With --json one object, once."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    with Feed(settings.kafka) as feed:
        if not feed.caught_up.wait(_CATCH_UP_S):
            found = feed.state.fault or f"its topics could not be read to their ends within {_CATCH_UP_S:.0f} s"
            raise DependencyUnreachable("Kafka", settings.kafka.bootstrap, found, "Try again")
        if json:
            emit_json(_now(feed, settings))
        elif once or not out.is_terminal:
            out.print(screen(_now(feed, settings), width=out.width, height=None), soft_wrap=False)
        else:
            _follow(feed, settings, every)


def _follow(feed: Feed, settings: Settings, every_s: float) -> None:
    first, due_s = 0, 0.0
    with stopped_by_signals() as stop, keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            key = pressed(min(every_s, 0.2))
            if key in ("q", "\x1b"):
                return
            first += _STEPS.get(key, 0)
            if key or time.monotonic() >= due_s:
                view = _now(feed, settings)
                first = max(0, min(first, last_first(view, out.height)))
                live.update(screen(view, out.width, out.height, first, feed.state.fault), refresh=True)
                due_s = time.monotonic() + every_s


def _now(feed: Feed, settings: Settings) -> Fleet:
    now = Now(time.time_ns() // 1_000_000, stale_after_ms(settings.status.interval_s))
    return feed.ask(lambda model: fleet(model, now, size=ALL))
