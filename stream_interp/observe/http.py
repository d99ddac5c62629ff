"""`/livez`, `/readyz` and `/metrics` of the processes that run here, in a daemon thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stream_interp.errors import UsageError
from stream_interp.observe.board import Board
from stream_interp.observe.metrics import registry_of
from stream_interp.observe.patience import ImpatientProtocol

_STOP_S = 5.0
_MAX_CONNECTIONS = 64


def routes(boards: Sequence[Board]) -> list[Route]:
    """The three pages, for a server of our own or to be mounted in another."""
    registry = registry_of(boards)

    def livez(_request: Request) -> Response:
        now_s = time.monotonic()
        silent = {b.process: round(b.silent_for_s(now_s), 1) for b in boards if not b.is_live(now_s)}
        return _answer({"live": not silent, "stuck_for_s": silent}, good=not silent)

    def readyz(_request: Request) -> Response:
        missing = {b.process: list(b.snapshot.missing) for b in boards if b.snapshot.missing}
        return _answer({"ready": not missing, "missing": missing}, good=not missing)

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type, "cache-control": "no-store"})

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


@contextmanager
def serving(http: str | None, boards: Sequence[Board], say: Callable[[str], None]) -> Iterator[None]:
    """Serves the boards until the block ends; does nothing without an address.

    Args:
        http: `HOST:PORT`; port 0 takes a free one.
        boards: of the processes that run here.
        say: gets the address.

    Raises:
        UsageError: an address that cannot be used.
    """
    if http is None:
        yield
        return
    listener = _listen(http)
    config = uvicorn.Config(
        Starlette(routes=routes(boards)), log_config=None, access_log=False, lifespan="off", server_header=False,
        limit_concurrency=_MAX_CONNECTIONS, http=ImpatientProtocol,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    say(f"health and metrics at http://{f'[{host}]' if ':' in host else host}:{port}/metrics, /livez, /readyz")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_STOP_S)
        listener.close()


def _listen(http: str) -> socket.socket:
    host, colon, port = http.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and int(port) <= 65_535):
        raise UsageError(f"--http {http}: expected HOST:PORT, such as --http 127.0.0.1:9464")
    try:
        where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        return socket.create_server(where[0][4][:2], family=where[0][0], backlog=_MAX_CONNECTIONS)
    except OSError as error:
        why = str(error.strerror or error).partition(" (")[0]
        raise UsageError(f"--http {http}: {why}; choose another port, or an address of this machine") from error


def _answer(content: dict[str, object], *, good: bool) -> Response:
    return JSONResponse(content, 200 if good else 503, headers={"cache-control": "no-store"})
