"""Mail in plain text, by SMTP with STARTTLS (`smtp://`, port 587) or TLS from the start (`smtps://`, port 465).

[[notify.sinks]]
name = "mail"
type = "email"
url = "smtps://mail.example.com"
username = "stream-interp"
secret_file = "/run/secrets/mail"  # the password
sender = "stream-interp@example.com"
to = ["on-call@example.com"]
# allow = ["mail.internal"]  # a private relay; one that is allowed may also lack STARTTLS, if no password is sent
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP

import aiohappyeyeballs
import aiosmtplib

from stream_interp.errors import UsageError
from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks.guard import Destination, read_allow
from stream_interp.notify.sinks.http_client import reason, split_url
from stream_interp.notify.sinks.sink import SinkError, SinkTools, required, secret, where
from stream_interp.notify.sinks.text import calendar, headline, one_line, plain, safe_id, web_links
from stream_interp.records.lane import digest
from stream_interp.settings import SinkSettings

PORTS = {"smtp": 587, "smtps": 465}
SUBJECT_CHARACTERS = 200
TEXT_CHARACTERS = 10_000
FAREWELL_S = 1.0
_ADDRESS = re.compile(r"[!#$%&'*+/=?^_`{|}~.A-Za-z0-9-]+@[A-Za-z0-9.-]+")


@dataclass(frozen=True)
class Email:
    """One mail for each notification; those of a story make one thread."""

    settings: SinkSettings
    tools: SinkTools
    destination: Destination
    from_start: bool  # TLS before the first word
    password: str | None
    tls: ssl.SSLContext

    async def send(self, notification: Notification) -> None:
        """Hands the mail to the relay. Raises SinkError."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                await self._hand_over(message(notification, self.settings))
        except TimeoutError:
            took = f"did not take the mail within {self.settings.timeout_s:g} s"
            raise SinkError(f"{self.destination.host} {took}", retry=True) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise failure(self.destination.host, error) from None

    async def close(self) -> None:
        """Holds nothing."""

    async def _hand_over(self, mail: EmailMessage) -> None:
        client = aiosmtplib.SMTP(
            hostname=self.destination.host,  # what the certificate must name
            sock=await connect(await self.destination.addresses(self.tools.resolve), self.destination.port),
            use_tls=self.from_start,
            start_tls=None if self.from_start or not self.destination.encrypted else True,
            username=self.settings.username or None,
            password=self.password,
            tls_context=self.tls,
            local_hostname=socket.gethostname(),
            timeout=self.settings.timeout_s,
        )
        try:
            await client.connect()
            refused, _ = await client.send_message(mail)
            with suppress(TimeoutError, aiosmtplib.SMTPException):  # it has the mail: no farewell is worth another try
                async with asyncio.timeout(FAREWELL_S):
                    await client.quit()
        finally:
            client.close()
        if refused:
            code, said = next(iter(refused.values()))
            found = f"{len(refused)} of {len(self.settings.to)} recipients refused: {code} {one_line(said, 200)}"
            raise SinkError(f"{self.destination.host}: {found}; the others have the mail", retry=False)


async def connect(addresses: list[str], port: int) -> socket.socket:
    """A connection to whichever of the checked addresses answers first. Raises OSError."""
    families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
    targets = [
        (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
        for family, address in zip(families, addresses, strict=True)
    ]
    return await aiohappyeyeballs.start_connection(targets, happy_eyeballs_delay=0.25)


def message(notification: Notification, settings: SinkSettings) -> EmailMessage:
    """The mail. Its Message-ID is the same on every try; hashes keep untrusted text out of the headers."""
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"] = settings.sender, ", ".join(settings.to)
    mail["Subject"] = headline(notification, SUBJECT_CHARACTERS)
    mail["Date"] = calendar(notification.at_ms)
    mail["Message-ID"] = f"<{digest(plain(notification.id, 10_000))[:32]}@stream-interp>"
    mail["References"] = f"<{digest(plain(notification.story, 10_000))[:32]}.story@stream-interp>"
    mail["Auto-Submitted"] = "auto-generated"
    links = [f"{name}: {url}" for name, url in web_links(notification).items()]
    mail.set_content(
        "\n\n".join(
            [plain(notification.text, TEXT_CHARACTERS), *links, f"event {safe_id(notification.id, SUBJECT_CHARACTERS)}"]
        )
    )
    return mail


def failure(host: str, error: Exception) -> SinkError:
    """What a failed hand-over means: answers of 500 and above are final."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        answers = list(error.recipients)
        code, said = answers[0].code, answers[0].message
        final = all(answer.code >= 500 for answer in answers)
    elif isinstance(error, aiosmtplib.SMTPResponseException):
        code, said, final = error.code, error.message, error.code >= 500
    else:
        found = error.message if isinstance(error, aiosmtplib.SMTPException) else reason(error)
        return SinkError(f"{host}: {one_line(found, 200)}", retry=True)
    return SinkError(f"{host} refused the mail: {code} {one_line(said, 200)}", retry=not final)


def make_email(settings: SinkSettings, tools: SinkTools) -> Email:
    """Needs `url`, `sender`, `to`, and `secret_file` where `username` is given. Raises UsageError."""
    parts, port = split_url(required(settings, "url", '"smtps://HOST"'), settings, PORTS)
    required(settings, "sender", '"stream-interp@example.com"')
    if not settings.to:
        raise UsageError(f'{where(settings)}: to is empty; an email sink needs to = ["on-call@example.com"]')
    for address in (settings.sender, *settings.to):
        if not _ADDRESS.fullmatch(address):
            raise UsageError(f"{where(settings)}: {one_line(address, 100)!r} is no mail address; expected name@host")
    password = secret(settings, "the password") if settings.username else None
    allowed, host = read_allow(settings), parts.hostname or ""
    from_start = parts.scheme == "smtps"
    insists = from_start or password is not None or not allowed.host(host)
    return Email(settings, tools, Destination(host, port, insists, allowed), from_start, password, tools.tls_context())
