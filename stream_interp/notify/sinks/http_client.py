"""One outgoing HTTP call: guarded address, verified TLS, one deadline, no redirect, a bounded answer."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from stream_interp.errors import UsageError
from stream_interp.notify.sinks.guard import Destination, read_allow
from stream_interp.notify.sinks.sink import SinkError, SinkTools, where
from stream_interp.notify.sinks.text import one_line
from stream_interp.secret_files import read_secret
from stream_interp.settings import SinkSettings

RETRY_AFTER_MAX_S = 900.0
ANSWER_BYTES = 4_096  # of a refusal, for the error message
ANSWER_WAIT_S = 1.0
SECRET_CHARACTERS = 8  # shorter parts of a path are words such as `v2` or `alerts`
PORTS = {"http": 80, "https": 443}
RETRIED = frozenset({408, 425, 429})  # of the 4xx: all others say that the same call fails again


class HttpClient:
    """Calls one address. Holds no connection between calls, so that each is looked up and checked anew.

    Args:
        url: the whole address; only its scheme and host are ever shown.
        token: sent as bearer token, where it is not empty.
        secrets: what else a receiver is told and must not bring into our logs by repeating it.

    Raises:
        UsageError: not an http(s) address, or one with credentials in it.
    """

    def __init__(
        self, settings: SinkSettings, tools: SinkTools, url: str, token: str = "", secrets: Iterable[str] = ()
    ) -> None:
        parts, port = split_url(url, settings, PORTS)
        assert parts.hostname is not None
        self.destination = Destination(parts.hostname, port, parts.scheme == "https", read_allow(settings))
        self.origin = one_line(f"{parts.scheme}://{parts.netloc}", 200)
        self._url, self._tools, self._timeout_s = url, tools, settings.timeout_s
        self._headers = {"User-Agent": "stream-interp", "Accept-Encoding": "identity"}
        self._headers |= {"Authorization": f"Bearer {token}"} if token else {}
        told = [token, *secrets, *re.split(r"[/?&=]", url.partition("://")[2])[1:]]
        self._secrets = [part for part in told if len(part) >= SECRET_CHARACTERS]
        self._tls = tools.tls_context() if parts.scheme == "https" else None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends JSON. Raises SinkError unless the answer is 2xx."""
        await self._call("POST", body, {"Content-Type": "application/json", **(headers or {})})

    async def get(self) -> None:
        """Raises SinkError unless the answer is 2xx."""
        await self._call("GET", None, {})

    async def _call(self, method: str, body: bytes | None, headers: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self.destination.addresses(self._tools.resolve)
                await self._exchange(method, body, headers, addresses)
        except TimeoutError:
            raise SinkError(f"{self.origin} did not answer within {self._timeout_s:g} s", retry=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SinkError(f"{self.origin}: {reason(error)}", retry=True) from None

    async def _exchange(self, method: str, body: bytes | None, headers: dict[str, str], addresses: list[str]) -> None:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, ssl=self._tls or True
        )
        sent = self._headers | headers
        async with (
            aiohttp.ClientSession(
                connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
            session.request(method, self._url, data=body, headers=sent, allow_redirects=False) as response,
        ):
            if not 200 <= response.status < 300:
                raise await self._refusal(response)

    async def _refusal(self, response: aiohttp.ClientResponse) -> SinkError:
        status = response.status
        found = f"{self.origin} answered {status} {self._shown(response.reason or '', 60)}".rstrip()
        if 300 <= status < 400:
            return SinkError(f"{found}: redirects are not followed; put the final address into url", retry=False)
        answer = b""
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(ANSWER_WAIT_S):
                answer = await response.content.read(ANSWER_BYTES)
        if said := self._shown(answer.decode("utf-8", "replace"), 200):
            found += f": {said}"
        retry = status >= 500 or status in RETRIED
        return SinkError(found, retry, retry_after_s(response.headers, self._tools.now_s()) if retry else None)

    def _shown(self, said: str, limit: int) -> str:
        for secret in self._secrets:
            said = said.replace(secret, "(hidden)")
        return one_line(said, limit)


class _Pinned(AbstractResolver):
    """Hands out the addresses that were checked, so that no second look-up can give others (DNS rebinding)."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [self._result(host, port, address) for address in self._addresses]

    @staticmethod
    def _result(host: str, port: int, address: str) -> ResolveResult:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return ResolveResult(
            hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
        )

    async def close(self) -> None:
        """Holds nothing."""


def split_url(url: str, settings: SinkSettings, ports: Mapping[str, int]) -> tuple[SplitResult, int]:
    """The parts of an address and its port.

    Args:
        ports: the default port of each scheme that may be used.

    Raises:
        UsageError: another scheme, no host, or credentials in the address. The message does not show the address.
    """
    expected = f"expected {' or '.join(f'{scheme}://HOST/…' for scheme in ports)}"
    try:
        parts = urlsplit(url)
        port = parts.port or ports[parts.scheme]
    except (ValueError, KeyError):
        raise UsageError(f"{where(settings)}: url is not an address this sink can call; {expected}") from None
    if not parts.hostname or set(url) & set(" \t\r\n\\"):
        raise UsageError(f"{where(settings)}: url has no host, or white space in it; {expected}")
    if parts.username is not None:
        raise UsageError(f"{where(settings)}: url holds credentials; put the secret into secret_file")
    return parts, port


def bearer_token(settings: SinkSettings) -> str:
    """The bearer token in `secret_file`, empty where none is named. Raises UsageError."""
    if not settings.secret_file:
        return ""
    token = read_secret(settings.secret_file, f"{where(settings)}.secret_file")
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{where(settings)}: the token in secret_file is not one line of ASCII")
    return token


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """What `Retry-After` asks for, as seconds or as a date, at most `RETRY_AFTER_MAX_S`; None where unreadable."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), RETRY_AFTER_MAX_S)
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - now_s, 0.0), RETRY_AFTER_MAX_S)
    except (ValueError, OverflowError):
        return None


def reason(error: Exception) -> str:
    """What went wrong with a connection, without the address that many messages repeat."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {one_line(inner.verify_message, 200)}"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed: {one_line(inner.reason or 'no reason given', 200)}"
    if isinstance(inner, OSError) and inner.errno and inner.errno in errno.errorcode:
        return os.strerror(inner.errno)
    if isinstance(inner, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    return f"no usable answer ({type(inner).__name__})"
