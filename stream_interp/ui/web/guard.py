"""What every request must be and every answer carries: reading only, a Host that is ours, a strict CSP."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}
_READING = frozenset({"GET", "HEAD"})


class Guard:
    """The outermost layer of the app.

    Args:
        app: what answers.
        server_names: names besides `localhost` and IP addresses under which it may be called.
    """

    def __init__(self, app: ASGIApp, server_names: Collection[str] = ()) -> None:
        self._app, self._names = app, frozenset({"localhost", *(name.lower() for name in server_names)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers by itself what must not get further."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        if scope["method"] not in _READING:
            text = "This page is read-only: found another method, expected GET or HEAD.\n"
            return PlainTextResponse(text, 405, headers={"allow": "GET, HEAD"})
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            text = (
                "Found a Host header that is none of ours, expected localhost, an IP address or a --server-name. "
                "If a reverse proxy has this name, start `stream-interp ui` with --server-name NAME.\n"
            )
            return PlainTextResponse(text, 421)
        return None

    def _is_ours(self, host: str) -> bool:
        """A page of a stranger that makes its own name point here (DNS rebinding) still sends that name."""
        name, _, port = host.rpartition(":") if host.count(":") == 1 or "]:" in host else (host, "", "")
        if port and not port.isdecimal():
            return False
        name = name.lower().removesuffix(".")
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
