"""`run`, `encode`, `detect`: the long-running processes in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.foreground import foreground
from stream_interp.cli.options import BootstrapOption, ConfigOption, HttpOption, RedisOption, SetOption, flags

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
    http: HttpOption = None,
) -> None:
    """Activations to windows: encode snapshots, write windows and cuts. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.encode.observed import encode_board
    from stream_interp.encode.process import Encode

    settings, board = load_settings(config, flags(sets, bootstrap=bootstrap, sites=one_site(sae))), encode_board()
    with foreground(settings.log, "encode", http, [board]) as (say, stop):
        Encode(settings, say, board).run(stop)


def detect(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
    http: HttpOption = None,
) -> None:
    """Windows to alerts and status: run the tests, keep the lanes' states. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.detect.observed import detect_board
    from stream_interp.detect.process import Detect

    settings, board = load_settings(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url)), detect_board()
    with foreground(settings.log, "detect", http, [board]) as (say, stop):
        Detect(settings, say, board).run(stop)


def run(
    sae: SaeOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
    http: HttpOption = None,
) -> None:
    """Encode and detect in one process; if one of them cannot go on, both end. Stops cleanly on SIGTERM and Ctrl-C."""
    from stream_interp.detect.observed import detect_board
    from stream_interp.detect.process import Detect
    from stream_interp.encode.observed import encode_board
    from stream_interp.encode.process import Encode

    settings = load_settings(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url, sites=one_site(sae)))
    boards = detect_board(), encode_board()
    with foreground(settings.log, "run", http, boards) as (say, stop):
        encoder = Encode(settings, say, boards[1])  # first: a wrong SAE must not fence off a DETECT that runs
        detector = Detect(settings, say, boards[0])
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
