"""A server process that never outlives us and never sees the terminal's Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stream_interp.errors import DependencyUnreachable

GUARD = Path(__file__).with_name("guard.py")
POLL_S = 0.05
LAST_LINES = 8


class GuardedProcess:
    """A command in its own session under `guard.py`; its output goes to `log_path`.

    The group's id is `pid`: signals go to the group, so that the guard and the command end together.

    Args:
        service: what the user knows it as, such as ``Kafka node 1``; for errors.
        command: program and arguments.
        cwd: where it runs.
        log_path: receives its standard output and error; truncated at start.
        env: its environment; None: ours.
    """

    def __init__(
        self, service: str, command: Sequence[str], *, cwd: Path, log_path: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.service, self.log_path = service, log_path
        with log_path.open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        self.pid = self._guard.pid

    def exit_code(self) -> int | None:
        """The command's exit status, None while it runs; 128 + n after signal n."""
        return self._guard.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send to the command and its guard; nothing happens if they are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """The exit status.

        Raises:
            DependencyUnreachable: it still runs after `timeout_s`.
        """
        try:
            return self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise self.failure("this machine", f"still busy after {timeout_s:.0f} s") from error

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`; leaves no process of the group."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash test wants it."""
        self.signal(signal.SIGKILL)
        self._guard.wait()
        if self._guard.stdin:
            self._guard.stdin.close()

    def wait_until(self, is_ready: Callable[[], bool], *, address: str, timeout_s: float) -> None:
        """Return once `is_ready()`.

        Raises:
            DependencyUnreachable: it ended, or was not ready within `timeout_s`; the last lines of its log are shown.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if (code := self.exit_code()) is not None:
                raise self.failure(address, f"ended with code {code} while starting")
            if time.monotonic() > deadline:
                raise self.failure(address, f"not ready after {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def failure(self, address: str, found: str) -> DependencyUnreachable:
        """The error that shows the end of the log."""
        return DependencyUnreachable(self.service, address, found, self.last_lines())

    def last_lines(self) -> str:
        """The end of its log, as a sentence."""
        lines = self.log_path.read_text(errors="replace").splitlines()[-LAST_LINES:]
        ending = "\n".join(lines) or "(empty)"
        return f"Its log {self.log_path.name} ends with:\n{ending}"
