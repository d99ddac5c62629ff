"""What every long-running command does around its process: logs, health and metrics, signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from stream_interp.cli.interrupts import stopped_by_signals
from stream_interp.cli.output import notice
from stream_interp.observe.board import Board
from stream_interp.observe.http import serving
from stream_interp.observe.logs import configure_logs
from stream_interp.settings import LogSettings


@contextmanager
def foreground(
    log: LogSettings, command: str, http: str | None, boards: Sequence[Board]
) -> Iterator[tuple[Callable[[str], None], threading.Event]]:
    """How the process speaks, and the event that SIGTERM and Ctrl-C set.

    Args:
        log: how to log.
        command: its name, for log lines.
        http: of `--http`.
        boards: of the processes that run inside; they are served from before these begin.

    Raises:
        UsageError: an address that cannot be used.
    """
    say = configure_logs(log, command, notice)
    with stopped_by_signals() as stop, serving(http, boards, say):
        yield say, stop
