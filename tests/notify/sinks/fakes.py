"""Receivers on this machine: a web server, a mail server, and one that misbehaves at the level of TCP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from stream_interp.notify.sinks import SinkTools
from stream_interp.settings import SinkSettings

HOST = "127.0.0.1"
NOW_S = 1_700_000_100.0
TIMEOUT_S = 0.6
PATH = "/services/T000/B000/secret-path"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PASSWORD = "hunter2-secret"
SECRETS = ("secret-path", "MfKQ9r8", PASSWORD)


@dataclass
class Got:
    """One HTTP request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpFake:
    """Answers with the replies of `script`, then with 200."""

    script: list[web.Response] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    port: int = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Got(request.method, request.path, headers, await request.read()))
        return self.script.pop(0) if self.script else web.Response(text="ok")


@asynccontextmanager
async def http_fake(tls: ssl.SSLContext | None = None, host: str = HOST, port: int = 0) -> AsyncIterator[HttpFake]:
    fake = HttpFake()
    runner = web.ServerRunner(web.Server(fake.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        await runner.cleanup()


@dataclass
class MailFake:
    """Answers DATA with the replies of `script`, then takes the mail."""

    script: list[str] = field(default_factory=list)
    got: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    sessions: list[Session] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd calls
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.script:
            return self.script.pop(0)
        assert isinstance(envelope.content, bytes)
        self.raw.append(envelope.content)
        self.got.append(BytesParser(EmailMessage, policy=default).parsebytes(envelope.content))
        self.recipients.append(envelope.rcpt_tos)
        self.sessions.append(session)
        return "250 taken"


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    good = isinstance(data, LoginPassword) and data == LoginPassword(b"me", PASSWORD.encode())
    return AuthResult(success=good, handled=False)


@asynccontextmanager
async def mail_fake(
    starttls: ssl.SSLContext | None = None, smtps: ssl.SSLContext | None = None, auth: bool = False
) -> AsyncIterator[MailFake]:
    fake = MailFake()

    def protocol() -> SMTP:
        return SMTP(
            fake, hostname="fake.test", tls_context=starttls, require_starttls=starttls is not None,
            authenticator=authenticate if auth else None, auth_required=auth, auth_require_tls=not smtps,
            loop=asyncio.get_running_loop(),
        )  # fmt: skip

    server = await asyncio.get_running_loop().create_server(protocol, HOST, 0, ssl=smtps)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()


@dataclass
class Rude:
    """What a misbehaving server saw and sent."""

    port: int = 0
    connections: int = 0
    sent_bytes: int = 0


@asynccontextmanager
async def rude_server(first: bytes, again: bytes, pause_s: float, host: str = HOST) -> AsyncIterator[Rude]:
    """Says `first`, then `again` for ever, with pauses; with neither it only listens."""
    rude = Rude()
    tasks: set[asyncio.Task[None]] = set()

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            await asyncio.sleep(pause_s)
            writer.write(again)
            await writer.drain()
            rude.sent_bytes += len(again)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rude.connections += 1
        task = asyncio.ensure_future(talk(writer))
        tasks.add(task)
        try:
            while await reader.read(65_536):
                pass
        except OSError:
            pass
        finally:
            task.cancel()
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    rude.port = server.sockets[0].getsockname()[1]
    try:
        yield rude
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def resolver(*answers: list[str]) -> tuple[Callable[[str, int], object], list[str]]:
    """Gives one answer after the other, the last for ever; and the list of hosts it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


def tools(**changes: object) -> SinkTools:
    """A clock that stands still; no look-up leaves this machine."""
    resolve, _ = resolver([HOST])
    return SinkTools(**({"now_s": lambda: NOW_S, "resolve": resolve} | changes))  # type: ignore[arg-type]


def settings(kind: str, port: int, folder: Path, **changes: object) -> SinkSettings:
    """A sink of a type as an operator would set it up against a receiver on this machine."""
    scheme, path = ("smtp", "") if kind == "email" else ("http", PATH)
    values = {"name": "mine", "type": kind, "url": f"{scheme}://{HOST}:{port}{path}", "allow": [HOST]}
    values |= {"timeout_s": TIMEOUT_S, "secret_file": secret_file(folder, KEY if kind == "webhook" else PASSWORD)}
    if kind == "email":
        values |= {"sender": "interp@us.test", "to": ["a@us.test", "b@us.test"]}
    return SinkSettings(**(values | changes))  # type: ignore[arg-type]


def secret_file(folder: Path, content: str) -> str:
    path = folder / "secret"
    path.write_text(f"{content}\n")
    return str(path)
