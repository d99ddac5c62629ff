"""The page's server: where it may listen, and its life."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from stream_interp.errors import UsageError
from stream_interp.observe.patience import ImpatientProtocol

LISTEN = "127.0.0.1:8640"
_CONCURRENT = 64
_END_S = 5


def parse_listen(listen: str, *, allow_remote: bool) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; port 0 is any free one.

    Raises:
        UsageError: it is not an address, or other machines could reach it and nobody said that they may.
    """
    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not port.isdecimal() or int(port) > 65_535:
        raise UsageError(f"--listen {listen}: expected HOST:PORT, such as {LISTEN}")
    if not allow_remote and not _is_loopback(bare):
        raise UsageError(
            f"--listen {listen}: found an address that other machines reach, expected loopback. The page has no login "
            "and shows the names of your models, features and operators: keep it on 127.0.0.1 behind a reverse proxy "
            "that knows who may read, or add --allow-remote where the network itself keeps others out"
        )
    return bare, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def serving(app: ASGIApp, host: str, port: int) -> Iterator[str]:
    """Serves the app from a thread; yields its URL.

    Raises:
        UsageError: nobody can listen there.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}; choose another port or host") from error
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="off", ws="none",
        limit_concurrency=_CONCURRENT, timeout_graceful_shutdown=_END_S, http=ImpatientProtocol,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="ui-server", daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(2 * _END_S)
        listener.close()
