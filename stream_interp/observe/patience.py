"""A connection that does not get on is closed: otherwise a few clients that send half a request lock everyone out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0  # to send a request
ANSWER_S = 60.0  # to take the answer


class ImpatientProtocol(H11Protocol):
    """What uvicorn lacks: it waits for ever for the rest of a request, and for a client that does not read."""

    def connection_made(self, transport: Any) -> None:
        """The clock starts."""
        super().connection_made(transport)
        self._watched, self._check = object(), self._check_in(REQUEST_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """It stops."""
        self._check.cancel()
        super().connection_lost(exc)

    def _check_in(self, wait_s: float) -> asyncio.TimerHandle:
        return self.loop.call_later(wait_s, self._close_if_it_stands)

    def _close_if_it_stands(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering or self.cycle is self._watched:
            self.transport.abort()
            return
        self._watched, self._check = self.cycle, self._check_in(ANSWER_S)
