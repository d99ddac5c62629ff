"""ENCODE and DETECT as the processes that they are in production, with settings that suit a minute."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stream_interp.embedded.process import GuardedProcess
from stream_interp.errors import StreamInterpError

BASELINE_REQUESTS = 1_500  # a provisional baseline; production learns from 10,000 by default
_PREFIX = "STREAM_INTERP_"
_STOP_GRACE_S = 5.0


def environment(outer: Mapping[str, str], bootstrap: str, redis_url: str) -> dict[str, str]:
    """The environment of the workers: that of the user without our settings, and the demo's own."""
    settings = {
        "KAFKA__BOOTSTRAP": bootstrap,
        "REDIS__URL": redis_url,
        "BASELINE__REQUESTS": str(BASELINE_REQUESTS),
        "WINDOW__MIN_AGE_S": "0.2",
        "STATUS__INTERVAL_S": "1",
    }
    kept = {name: value for name, value in outer.items() if not name.upper().startswith(_PREFIX)}
    threads = {"OMP_NUM_THREADS": "1"}  # matrices this small gain nothing from more
    return kept | threads | {_PREFIX + name: value for name, value in settings.items()}


@contextmanager
def running(folder: Path, sae: Path, env: Mapping[str, str]) -> Iterator[tuple[GuardedProcess, ...]]:
    """Both workers, stopped at the end. Their logs are in `folder`, where no stream-interp.toml of the user is."""
    commands = {"encode": ["--sae", str(sae)], "detect": []}
    started: list[GuardedProcess] = []
    try:
        for name, options in commands.items():
            command = [sys.executable, "-m", "stream_interp.cli", name, *options]
            started.append(GuardedProcess(name, command, cwd=folder, log_path=folder / f"{name}.log", env=env))
        yield tuple(started)
    finally:
        for process in started:
            process.signal(signal.SIGTERM)
        for process in started:
            process.stop(_STOP_GRACE_S)


def check(workers: tuple[GuardedProcess, ...]) -> None:
    """Raises StreamInterpError with the end of its log when a worker ended by itself."""
    for process in workers:
        if (code := process.exit_code()) is not None:
            raise StreamInterpError(f"{process.service} ended by itself with code {code}; {process.last_lines()}")
