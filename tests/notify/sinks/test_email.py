"""Mail: headers that nobody can add to, TLS before the password, refusals by recipient."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace

from stream_interp.errors import UsageError
from stream_interp.notify.sinks import SinkError, make_sink
from stream_interp.notify.sinks.email import message
from tests.notify.sinks import fakes
from tests.notify.sinks.cases import HOSTILE, NOTIFICATIONS, PLAIN, hostile

HEADERS = [
    "Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "MIME-Version", "Message-ID",
    "References", "Subject", "To",
]  # fmt: skip


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_no_text_becomes_a_header(name: str, tmp_path: Path) -> None:
    mail = message(NOTIFICATIONS[name], fakes.settings("email", 1, tmp_path))
    assert sorted(mail.keys()) == sorted(HEADERS)
    head = mail.as_bytes().split(b"\r\n\r\n")[0]
    assert b"\nBcc" not in head
    assert mail.get_content_type() == "text/plain"
    assert "\n" not in str(mail["Subject"])


def test_newlines_in_a_title_reach_nobody_else(tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.mail_fake() as fake:
            await make_sink(fakes.settings("email", fake.port, tmp_path), fakes.tools()).send(
                hostile(HOSTILE["newlines"])
            )
            assert fake.recipients == [["a@us.test", "b@us.test"]]
            assert "\n.\nMAIL FROM" in fake.got[0].get_content().replace("\r", "")  # as text, after dot-stuffing
            assert fake.got[0]["Bcc"] is None

    asyncio.run(run())


def test_a_repeat_has_the_same_message_id_and_a_story_one_thread(tmp_path: Path) -> None:
    made = fakes.settings("email", 1, tmp_path)
    first, again, later = (message(n, made) for n in (PLAIN, PLAIN, replace(PLAIN, id="other", phase="resolved")))
    assert first["Message-ID"] == again["Message-ID"] != later["Message-ID"]
    assert first["References"] == later["References"]
    assert first["Subject"] == "critical: credit-risk/hidden: 1 feature drifted"
    assert first["Auto-Submitted"] == "auto-generated"
    assert PLAIN.links["ui"] in first.get_content()


@pytest.mark.parametrize("at_ms", [-(10**30), -1, 2**63, 10**30])
def test_a_time_beyond_the_calendar_is_mailed_all_the_same(at_ms: int, tmp_path: Path) -> None:
    mail = message(replace(PLAIN, at_ms=at_ms), fakes.settings("email", 1, tmp_path))
    assert mail["Date"].datetime.year in (1970, 9999)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server called mail.test, and of a client that trusts it."""
    authority = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("mail.test").configure_cert(served)
    authority.configure_trust(trusted)
    return served, trusted


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # the fake sees no TLS of its own where smtps wraps it
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_tls_by_name_at_the_pinned_address_then_the_password(scheme: str, tmp_path: Path) -> None:
    async def run() -> None:
        served, trusted = contexts()
        where = {"smtps": served} if scheme == "smtps" else {"starttls": served}
        async with fakes.mail_fake(auth=True, **where) as fake:
            made = fakes.settings("email", fake.port, tmp_path, username="me")
            named = replace(made, url=f"{scheme}://mail.test:{fake.port}")
            await make_sink(named, fakes.tools(tls_context=lambda: trusted)).send(PLAIN)
            assert (len(fake.got), fake.sessions[0].authenticated) == (1, True)
            for host, context in (("other.test", trusted), ("mail.test", ssl.create_default_context())):
                wrong = replace(made, url=f"{scheme}://{host}:{fake.port}")
                with pytest.raises(SinkError) as caught:
                    await make_sink(wrong, fakes.tools(tls_context=lambda context=context: context)).send(PLAIN)
                assert caught.value.retry
            assert len(fake.got) == 1

    asyncio.run(run())


def test_a_wrong_password_is_not_retried(tmp_path: Path) -> None:
    async def run() -> None:
        served, trusted = contexts()
        async with fakes.mail_fake(auth=True, starttls=served) as fake:
            made = fakes.settings("email", fake.port, tmp_path, username="me", url=f"smtp://mail.test:{fake.port}")
            wrong = replace(made, secret_file=fakes.secret_file(tmp_path, "wrong-password"))
            with pytest.raises(SinkError, match="535") as caught:
                await make_sink(wrong, fakes.tools(tls_context=lambda: trusted)).send(PLAIN)
            assert not caught.value.retry
            assert "wrong-password" not in str(caught.value)

    asyncio.run(run())


def test_no_password_and_no_public_mail_without_tls(tmp_path: Path) -> None:
    """The relay offers no STARTTLS: only an allowed host, and no password, may do without."""

    async def run() -> None:
        async with fakes.mail_fake() as fake:
            made = fakes.settings("email", fake.port, tmp_path)
            by_name = replace(made, url=f"smtp://mail.test:{fake.port}")  # its network is allowed, its name is not
            for strict in (replace(made, username="me"), by_name):
                with pytest.raises(SinkError, match="STARTTLS"):
                    await make_sink(strict, fakes.tools()).send(PLAIN)
            assert not fake.got
            await make_sink(replace(by_name, allow=["mail.test"]), fakes.tools()).send(PLAIN)
            assert len(fake.got) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("refused", "told"), [(["a@us.test"], "1 of 2 recipients"), (["a@us.test", "b@us.test"], "refused the mail: 550")]
)
def test_refused_recipients_are_told_and_not_retried(refused: list[str], told: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with fakes.mail_fake() as fake:
            fake.refused = frozenset(refused)
            with pytest.raises(SinkError, match=told) as caught:
                await make_sink(fakes.settings("email", fake.port, tmp_path), fakes.tools()).send(PLAIN)
            assert not caught.value.retry
            assert len(fake.got) == 2 - len(refused)

    asyncio.run(run())


@pytest.mark.parametrize(
    "address", ["a", "a@", "A <a@us.test>", "a@us.test, b@us.test", "a@us.test\nBcc: x@y", "ä@us.test", ""]
)
def test_wrong_mail_addresses_are_told(address: str, tmp_path: Path) -> None:
    for changes in ({"to": [address]}, {"sender": address}):
        with pytest.raises(UsageError, match=r"^notify\.sinks\[mine\]: ") as caught:
            make_sink(fakes.settings("email", 1, tmp_path, **changes), fakes.tools())
        assert str(caught.value).isprintable()
