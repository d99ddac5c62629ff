"""A webhook receiver on this machine that remembers what came and when."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One call: when it came (Unix epoch ms), its `webhook-id`, and `data` of its body."""

    at_ms: int
    webhook_id: str
    data: Any


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # at its default of 5 a burst of calls waits a second for the kernel


class Receiver:
    """Listens on 127.0.0.1 between `with`; `port` 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at_ms = time.time_ns() // 1_000_000
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.received.append(Received(at_ms, self.headers["webhook-id"], body["data"]))
                self.send_response(204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Silent."""

        self._server = _Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
