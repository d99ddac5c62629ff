"""Ports of the loopback interface."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from stream_interp.errors import UsageError

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on just now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]


def require_free(port: int) -> None:
    """Check that a server could listen there.

    Raises:
        UsageError: another process does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not busy
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} of {HOST}: found it taken ({error.strerror}), expected it free. "
                "Stop the process that listens there, or choose another with `dev --kafka-port N` or `--redis-port N`."
            ) from error
