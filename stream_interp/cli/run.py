"""`run`, `encode`, `detect`: the long-running processes in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, RedisOption, SetOption, flags
from stream_interp.cli.output import notice

_READY_POLL_S = 0.1

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


def detect(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
) -> None:
    """Windows to alerts and status: run the tests, keep the lanes' states. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.detect.process import Detect

    settings = load_settings(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url))
    with stopped_by_signals() as stop:
        Detect(settings, notice).run(stop)


def run(
    sae: SaeOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
) -> None:
    """Encode and detect in one process; if one of them cannot go on, both end. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.detect.process import Detect
    from stream_interp.encode.process import Encode

    settings = load_settings(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url, sites=one_site(sae)))
    with stopped_by_signals() as stop:
        detector, encoder = Detect(settings, notice), Encode(settings, notice)
        run_together([(detector.run, detector.ready), (encoder.run, None)], stop)


def run_together(
    loops: Sequence[tuple[Callable[[threading.Event], None], threading.Event | None]], stop: threading.Event
) -> None:
    """Runs each loop in a thread until all have ended. The first that raises stops the others; its error is raised.

    A loop with an event is ready once that is set; the next starts then, so that the windows of a new lane do not
    come before the marker of the baseline that waits for it.
    """
    errors: list[BaseException] = []

    def guarded(loop: Callable[[threading.Event], None]) -> None:
        try:
            loop(stop)
        except BaseException as error:
            errors.append(error)
        finally:
            stop.set()

    threads = [threading.Thread(target=guarded, args=(loop,)) for loop, _ in loops]
    for thread, (_, ready) in zip(threads, loops, strict=True):
        thread.start()
        while ready is not None and not ready.wait(_READY_POLL_S) and not stop.is_set():
            pass
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


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
