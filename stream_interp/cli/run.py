"""`encode`: the long-running processes in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, SetOption, flags
from stream_interp.cli.output import notice

SaeOption = Annotated[
    Path | None,
    typer.Option("--sae", metavar="DIR", help="Encode every site with this SAE. [setting: [[sites]], one per site]"),
]


def encode(
    sae: SaeOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
) -> None:
    """Activations to windows: encode snapshots, write windows and cuts. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.encode.process import Encode

    settings = load_settings(config, flags(sets, bootstrap=bootstrap, sites=one_site(sae)))
    with stopped_by_signals() as stop:
        Encode(settings, notice).run(stop)


def one_site(sae: Path | None) -> list[dict[str, str]] | None:
    """`[[sites]]` of the short form `--sae DIR`: one entry that matches every site."""
    return None if sae is None else [{"sae": str(sae)}]


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = threading.Event()

    def ask(signum: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signum, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
