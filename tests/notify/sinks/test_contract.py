"""What every sink of the table does alike. A new type runs through all of it, as one that calls by HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks import SINKS, SinkError, make_sink
from stream_interp.notify.sinks.text import headline
from stream_interp.settings import SinkSettings
from tests.notify.sinks import fakes
from tests.notify.sinks.cases import HOSTILE, NOTIFICATIONS, PLAIN, TEST

REMOTE = [kind for kind in SINKS if kind != "console"]
SLACK_S = 1.5  # for a busy machine, beyond the sink's own timeout
BOUND_BYTES = 32 * 2**20


@dataclass
class Stand:
    """A sink's receiver: what came in as text, and how to make it say no."""

    settings: SinkSettings
    receiver: fakes.HttpFake | fakes.MailFake

    def received(self) -> list[Any]:
        if isinstance(self.receiver, fakes.MailFake):
            return [[mail["Subject"], mail.get_content().replace("\r", "")] for mail in self.receiver.got]
        return [json.loads(got.body or b"{}") for got in self.receiver.got]

    def refuse_once(self, for_good: bool) -> None:
        if isinstance(self.receiver, fakes.MailFake):
            self.receiver.script.append("550 never" if for_good else "451 later")
        elif for_good:
            self.receiver.script.append(web.Response(status=410, text=f"gone {fakes.PATH}"))
        else:
            self.receiver.script.append(web.Response(status=500, headers={"Retry-After": "7"}))


@asynccontextmanager
async def stand(kind: str, folder: Path) -> AsyncIterator[Stand]:
    server = fakes.mail_fake() if kind == "email" else fakes.http_fake()
    async with server as receiver:
        yield Stand(fakes.settings(kind, receiver.port, folder), receiver)


async def outcome(call: Awaitable[None]) -> SinkError:
    """The error of a call that must not succeed. It shows no secret, on one inert line."""
    with pytest.raises(SinkError) as caught:
        await call
    found = str(caught.value)
    assert not [secret for secret in fakes.SECRETS if secret in found], found
    assert found.isprintable()
    assert 0 < len(found) < 600
    return caught.value


@pytest.mark.parametrize("kind", REMOTE)
def test_every_notification_arrives_inert(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with stand(kind, tmp_path) as at:
            sink = make_sink(at.settings, fakes.tools())
            for name, notification in NOTIFICATIONS.items():
                before = len(at.received())
                await sink.send(notification)
                new = at.received()[before:]
                assert len(new) == expected_messages(kind, notification), name
                for part in strings(new):
                    assert_inert(part)
            await sink.close()
            await sink.close()

    asyncio.run(run())


def expected_messages(kind: str, notification: Notification) -> int:
    if kind == "deadman":
        return int(notification.kind == "test")
    return int(not (kind == "alertmanager" and notification.phase == "acknowledged" and notification.alert is None))


def assert_inert(text: str) -> None:
    assert text.replace("\n", "").replace("\t", "").isprintable(), text[:200]
    assert len(text) <= 10_500


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    return [text for part in value for text in strings(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("kind", REMOTE)
def test_a_temporary_failure_is_retried_and_then_delivered(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with stand(kind, tmp_path) as at:
            sink = make_sink(at.settings, fakes.tools())
            at.refuse_once(for_good=False)
            error = await outcome(sink.send(TEST))
            assert error.retry
            assert error.retry_after_s == (None if kind == "email" else 7.0)
            at.receiver.got.clear()
            await sink.send(TEST)
            assert len(at.received()) == 1

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_a_final_refusal_is_not_retried(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with stand(kind, tmp_path) as at:
            at.refuse_once(for_good=True)
            error = await outcome(make_sink(at.settings, fakes.tools()).send(TEST))
            assert not error.retry
            assert ("550" if kind == "email" else "410") in error.found

    asyncio.run(run())


RUDE = {  # what is said first, what again and again, and the pause between
    "says nothing": (b"", b"", 0.05),
    "drips": (b"HTTP/1.1 200 OK\r\nX: ", b"2", 0.02),
    "drips body of refusal": (b"HTTP/1.1 500 no\r\nContent-Length: 99999\r\n\r\n", b"2", 0.02),
    "giant body": (b"HTTP/1.1 500 no\r\nContent-Length: 99999999999\r\n\r\n", b"A" * 65_536, 0),
    "giant head": (b"HTTP/1.1 200 OK\r\nX: ", b"A" * 65_536, 0),
    "giant lines": (b"220-hello\r\n", b"220-" + b"A" * 500 + b"\r\n", 0),
    "another protocol": (b"\x16\x03\x01\x00\xff\x00", b"\x00", 0.02),
}


@pytest.mark.parametrize("manner", RUDE)
@pytest.mark.parametrize("kind", REMOTE)
def test_a_rude_receiver_costs_bounded_time_and_memory(kind: str, manner: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.rude_server(*RUDE[manner]) as rude:
            sink = make_sink(fakes.settings(kind, rude.port, tmp_path), fakes.tools())
            began = time.monotonic()
            error = await outcome(sink.send(TEST))
            assert error.retry
            assert time.monotonic() - began < fakes.TIMEOUT_S + SLACK_S
            assert rude.sent_bytes < BOUND_BYTES

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_cancelling_ends_a_send_at_once(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.rude_server(*RUDE["says nothing"]) as rude:
            sink = make_sink(fakes.settings(kind, rude.port, tmp_path, timeout_s=60.0), fakes.tools())
            task = asyncio.ensure_future(sink.send(TEST))
            while not rude.connections:
                await asyncio.sleep(0.01)
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < SLACK_S

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_nobody_listens(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.rude_server(b"", b"", 1) as rude:
            port = rude.port
        error = await outcome(make_sink(fakes.settings(kind, port, tmp_path), fakes.tools()).send(TEST))
        assert error.retry
        assert "Connection refused" in error.found

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_a_private_host_is_refused_before_any_connection(kind: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.rude_server(b"", b"", 1) as rude:
            secure = {"url": f"{'smtps' if kind == 'email' else 'https'}://{fakes.HOST}:{rude.port}{fakes.PATH}"}
            for changes in (secure, {}):
                sink = make_sink(fakes.settings(kind, rude.port, tmp_path, allow=[], **changes), fakes.tools())
                error = await outcome(sink.send(TEST))
                assert not error.retry
                assert "not a public address" in error.found
                assert rude.connections == 0

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_a_host_is_looked_up_once_for_each_call_and_called_where_it_was_found(kind: str, tmp_path: Path) -> None:
    """127.0.0.2 stands for a public address, 127.0.0.1 for what a rebinding name points to afterwards."""

    async def run() -> None:
        async with fakes.rude_server(b"", b"", 1, host="127.0.0.2") as meant:
            resolve, asked = fakes.resolver(["127.0.0.2"], ["127.0.0.1"])
            changed = fakes.settings(kind, meant.port, tmp_path, allow=["127.0.0.2"])
            sink = make_sink(
                replace(changed, url=changed.url.replace(fakes.HOST, "twofaced.test")), fakes.tools(resolve=resolve)
            )
            assert (await outcome(sink.send(TEST))).retry  # the right one was called, and said nothing
            assert (meant.connections, asked) == (1, ["twofaced.test"])
            error = await outcome(sink.send(TEST))
            assert not error.retry
            assert "twofaced.test is 127.0.0.1" in error.found
            assert (meant.connections, len(asked)) == (1, 2)

    asyncio.run(run())


@pytest.mark.parametrize("kind", REMOTE)
def test_a_name_that_cannot_be_looked_up_is_retried(kind: str, tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async def run() -> None:
        made = fakes.settings(kind, 1, tmp_path)
        sink = make_sink(replace(made, url=made.url.replace(fakes.HOST, "nowhere.test")), fakes.tools(resolve=resolve))
        assert (await outcome(sink.send(TEST))).retry

    asyncio.run(run())


def test_console_writes_inert_lines_that_pass_for_no_other_notification() -> None:
    written: list[str] = []
    sink = make_sink(SinkSettings(name="x", type="console"), fakes.tools(write_line=written.append))

    async def run() -> None:
        for notification in NOTIFICATIONS.values():
            await sink.send(notification)
        await sink.close()

    asyncio.run(run())
    assert len(written) == len(NOTIFICATIONS)
    for one in written:
        first, *rest = one.split("\n")
        assert first.startswith("2023-11-14 22:13:20 UTC critical: ")
        assert all(line.isprintable() and len(line) < 2_300 for line in (first, *rest))
        assert rest
        assert all(line.startswith("  ") for line in rest)
        assert len(rest) < 40
    assert any("�[31mred" in one for one in written)
    assert all(HOSTILE["html"][:25] in one for one in written if "script" in one)
    assert "  ui: https://ui.test/lanes/5d4c?a=1&b=2\n" in written[0]


def test_the_severity_is_said_once() -> None:
    plain = replace(PLAIN, title="critical: drift on a/b (data_shift)")
    assert headline(plain, 100) == "critical: drift on a/b (data_shift)"
    assert headline(replace(plain, title="detector silent: detect-0"), 100) == "critical: detector silent: detect-0"
    assert headline(plain, 10) == "critical:…"


def test_a_console_that_is_gone_is_retried() -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    sink = make_sink(SinkSettings(name="x", type="console"), fakes.tools(write_line=gone))
    with pytest.raises(SinkError, match="Broken pipe") as caught:
        asyncio.run(sink.send(TEST))
    assert caught.value.retry
