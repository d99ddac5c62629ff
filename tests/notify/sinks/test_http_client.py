"""The outgoing call: answers, redirects, TLS by name at a pinned address, nothing of ours told to others."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from stream_interp.notify.sinks import SinkError
from stream_interp.notify.sinks.http_client import RETRY_AFTER_MAX_S, HttpClient, retry_after_s
from tests.notify.sinks import fakes


def client(port: int, folder: Path, **changes: object) -> HttpClient:
    made = fakes.settings("webhook", port, folder, **changes)
    return HttpClient(made, fakes.tools(), made.url, token="t0ken-of-ours")


async def refused(call: HttpClient) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await call.post(b"{}")
    return caught.value


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        *((status, True) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, False) for status in (300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422, 451)),
    ],
)
def test_which_answers_are_retried(status: int, retry: bool, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.http_fake() as fake:
            headers = {"Retry-After": "3", "Location": "/elsewhere"}
            fake.script.append(web.Response(status=status, headers=headers, text="because\x1b[31m"))
            error = await refused(client(fake.port, tmp_path))
            assert error.retry is retry
            assert error.retry_after_s == (3.0 if retry else None)
            assert str(status) in error.found
            assert len(fake.got) == 1

    asyncio.run(run())


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_which_answers_are_fine(status: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.http_fake() as fake:
            fake.script.append(web.Response(status=status))
            await client(fake.port, tmp_path).post(b'{"a":1}', {"webhook-id": "x"})
            got = fake.got[0]
            assert (got.method, got.path, got.body) == ("POST", fakes.PATH, b'{"a":1}')
            assert got.headers["authorization"] == "Bearer t0ken-of-ours"
            assert got.headers["content-type"] == "application/json"
            assert got.headers["webhook-id"] == "x"
            assert got.headers["accept-encoding"] == "identity"
            assert "cookie" not in got.headers

    asyncio.run(run())


def test_an_answer_of_200_with_an_endless_body_is_delivered(tmp_path: Path) -> None:
    async def run() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
        async with fakes.rude_server(head, b"A" * 65_536, 0) as rude:
            await client(rude.port, tmp_path).post(b"{}")
            assert rude.sent_bytes < 32 * 2**20

    asyncio.run(run())


def test_a_redirect_to_a_private_address_goes_nowhere(tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.rude_server(b"", b"", 1) as trap, fakes.http_fake() as fake:
            location = f"http://127.0.0.1:{trap.port}/latest/meta-data/"
            fake.script.append(web.Response(status=307, headers={"Location": location}))
            error = await refused(client(fake.port, tmp_path))
            assert "redirects are not followed" in error.found
            assert "meta-data" not in error.found
            assert trap.connections == 0

    asyncio.run(run())


def test_what_a_receiver_repeats_of_our_secrets_is_hidden(tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.http_fake() as fake:
            said = f"Cannot POST {fakes.PATH.replace('/', chr(92) + '/')} with t0ken-of-ours" + "\x07" * 5_000
            fake.script.append(web.Response(status=404, text=said, reason="secret-path t0ken-of-ours"))
            found = (await refused(client(fake.port, tmp_path))).found
            assert "Cannot POST" in found
            assert "secret-path" not in found
            assert "t0ken" not in found
            assert found.isprintable()

    asyncio.run(run())


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.http_fake() as fake:
            bomb = gzip.compress(b"A" * 10_000_000)
            fake.script.append(web.Response(status=400, body=bomb, headers={"Content-Encoding": "gzip"}))
            found = (await refused(client(fake.port, tmp_path))).found
            assert "AAAA" not in found
            assert len(found) < 400

    asyncio.run(run())


def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with fakes.rude_server(b"", b"", 1) as proxy, fakes.http_fake() as fake:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            await client(fake.port, tmp_path).post(b"{}")
            assert (len(fake.got), proxy.connections) == (1, 0)

    asyncio.run(run())


def test_tls_verifies_the_name_at_the_pinned_address(tmp_path: Path) -> None:
    async def run() -> None:
        authority = trustme.CA()
        served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("hooks.test").configure_cert(served)
        authority.configure_trust(trusted)
        async with fakes.http_fake(tls=served) as fake:

            async def call(host: str, context: ssl.SSLContext) -> None:
                url = f"https://{host}:{fake.port}{fakes.PATH}"
                made = fakes.settings("webhook", fake.port, tmp_path, url=url)
                await HttpClient(made, fakes.tools(tls_context=lambda: context), url).post(b"{}")

            await call("hooks.test", trusted)
            assert fake.got[0].headers["host"] == f"hooks.test:{fake.port}"
            for host, context in (("other.test", trusted), ("hooks.test", ssl.create_default_context())):
                with pytest.raises(SinkError, match=r"certificate is not trusted: \w") as caught:
                    await call(host, context)
                assert caught.value.retry
            assert len(fake.got) == 1

    asyncio.run(run())


def test_tls_at_a_plain_port_is_an_error_not_a_crash(tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.http_fake() as fake:
            url = f"https://127.0.0.1:{fake.port}/"
            error = await refused(client(fake.port, tmp_path, url=url))
            assert error.retry
            assert "TLS failed" in error.found

    asyncio.run(run())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0), ("7", 7.0), ("999999999999", RETRY_AFTER_MAX_S), ("9" * 400, RETRY_AFTER_MAX_S), ("-5", None),
        ("nan", None), ("1.5", None), ("", None), ("soon", None), ("٣", None),
        (formatdate(fakes.NOW_S + 30, usegmt=True), 30.0), (formatdate(fakes.NOW_S - 30, usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S), ("Mon, 99 Foo 0000 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after(value: str, expected: float | None) -> None:
    assert retry_after_s({"Retry-After": value}, fakes.NOW_S) == expected
