"""What a sink is, what it needs from outside, and how it says that a delivery did not happen."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from stream_interp.errors import StreamInterpError, UsageError
from stream_interp.notify.notification import Notification
from stream_interp.secret_files import read_secret
from stream_interp.settings import SinkSettings

Resolve = Callable[[str, int], Awaitable[list[str]]]

# Threads of their own: a look-up cannot be cancelled, and a dead name server must not take those that others need.
_LOOK_UPS = ThreadPoolExecutor(max_workers=32, thread_name_prefix="look-up")


class SinkError(StreamInterpError):
    """A notification was not delivered.

    Args:
        found: what happened and what to do; no secret, no path of an address, one line without control characters.
        retry: the same delivery may succeed later.
        retry_after_s: how long the receiver asked us to wait, capped; None where it did not ask.
    """

    def __init__(self, found: str, retry: bool, retry_after_s: float | None = None) -> None:
        super().__init__(found)
        self.found, self.retry, self.retry_after_s = found, retry, retry_after_s


class Sink(Protocol):
    """Somewhere that notifications go. Every `send` ends within `timeout_s`; it may be sent the same again."""

    async def send(self, notification: Notification) -> None:
        """Delivers, or raises SinkError and nothing else."""

    async def close(self) -> None:
        """Gives back what the sink holds."""


@runtime_checkable
class Pinger(Protocol):
    """A sink that also wants to be told, every `interval_s` of its settings, that NOTIFY lives."""

    async def ping(self) -> None:
        """Tells, or raises SinkError."""


async def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of a host by the system's resolver. Raises OSError."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def write_stdout(line: str) -> None:
    """A line, or several, on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class SinkTools:
    """What a sink needs from outside. The defaults are the real ones.

    Attributes:
        now_s: Unix epoch seconds.
        resolve: (host, port) → addresses.
        write_line: takes the lines of one notification of the console sink, without the last newline.
        tls_context: makes the TLS settings of outgoing calls; the real one trusts the system's authorities, and those
            in the file that the environment variable `SSL_CERT_FILE` names.
    """

    now_s: Callable[[], float] = time.time
    resolve: Resolve = resolve_host
    write_line: Callable[[str], None] = write_stdout
    tls_context: Callable[[], ssl.SSLContext] = ssl.create_default_context


def where(settings: SinkSettings) -> str:
    """How errors name a sink's settings."""
    return f"notify.sinks[{settings.name}]"


def required(settings: SinkSettings, name: str, example: str) -> str:
    """A text setting that this type of sink cannot do without. Raises UsageError."""
    value: str = getattr(settings, name)
    if not value:
        raise UsageError(f"{where(settings)}: {name} is missing; a {settings.type} sink needs {name} = {example}")
    return value


def secret(settings: SinkSettings, content: str) -> str:
    """The content of `secret_file`, which this type of sink cannot do without. Raises UsageError."""
    path = required(settings, "secret_file", f'"FILE", which holds {content}')
    return read_secret(path, f"{where(settings)}.secret_file")
