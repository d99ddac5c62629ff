"""Standard Webhooks: the published example, and every signature computed again by other means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from stream_interp.errors import UsageError
from stream_interp.notify.sinks import make_sink
from stream_interp.notify.sinks.webhook import body, read_keys, signed
from tests.notify.sinks import fakes
from tests.notify.sinks.cases import HOSTILE, NOTIFICATIONS, PLAIN, hostile

OTHER_KEY = "whsec_" + base64.b64encode(bytes(range(64))).decode()


def hmac_by_hand(key: bytes, told: bytes) -> str:
    """RFC 2104 from its definition, for keys of at most one block."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + told).digest()
    return base64.b64encode(hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()).decode()


def test_the_example_of_the_specification() -> None:
    headers = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', read_keys(fakes.KEY, "secret_file")
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_live_key_signs_what_was_received(tmp_path: Path) -> None:
    async def run() -> fakes.Got:
        async with fakes.http_fake() as fake:
            made = fakes.settings("webhook", fake.port, tmp_path)
            fakes.secret_file(tmp_path, f"{OTHER_KEY}\n\n{fakes.KEY}\r")
            await make_sink(made, fakes.tools()).send(PLAIN)
            return fake.got[0]

    got = asyncio.run(run())
    assert got.headers["webhook-id"] == PLAIN.id
    assert got.headers["webhook-timestamp"] == str(int(fakes.NOW_S))
    told = f"{PLAIN.id}.{int(fakes.NOW_S)}.".encode() + got.body
    expected = [hmac_by_hand(base64.b64decode(key[6:]), told) for key in (OTHER_KEY, fakes.KEY)]
    assert got.headers["webhook-signature"].split(" ") == [f"v1,{signature}" for signature in expected]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees() -> None:
    content = body(PLAIN)
    headers = signed(PLAIN.id, 1_700_000_000, content, read_keys(fakes.KEY, "secret_file"))
    told = f"{PLAIN.id}.1700000000.".encode() + content
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt"]
    command += [f"hexkey:{base64.b64decode(fakes.KEY[6:]).hex()}", "-binary"]
    mac = subprocess.run(command, input=told, stdout=subprocess.PIPE, check=True).stdout
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"


def test_the_body_is_the_same_on_every_try_and_holds_the_notification() -> None:
    told = json.loads(body(PLAIN))
    assert body(PLAIN) == body(PLAIN)
    assert told["type"] == "interp.notification.v1"
    assert told["timestamp"] == "2023-11-14T22:13:20.000Z"
    data = told["data"]
    assert (data["id"], data["story"], data["phase"]) == (PLAIN.id, PLAIN.story, "firing")
    assert data["alert"]["features"][0]["label"] == "late payments"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_id_stays_one_header_and_the_same_in_the_body(name: str) -> None:
    notification = hostile(HOSTILE[name])
    headers = signed(notification.id, 1, body(notification), read_keys(fakes.KEY, "secret_file"))
    assert headers["webhook-id"] == json.loads(body(notification))["data"]["id"]
    assert headers["webhook-id"].isascii()
    assert headers["webhook-id"].isprintable()
    assert 0 < len(headers["webhook-id"]) <= 200


def test_no_id_can_pass_for_another_id_and_timestamp() -> None:
    told = structs.replace(PLAIN, id="a.1700000000")
    headers = signed(told.id, 1, body(told), read_keys(fakes.KEY, "secret_file"))
    assert "." not in headers["webhook-id"]
    assert headers["webhook-id"] == json.loads(body(told))["data"]["id"]


def test_of_very_many_events_the_newest_are_named() -> None:
    many = structs.replace(PLAIN, event_ids=[f"{number:032}" for number in range(100_000)])
    told = json.loads(body(many))["data"]["event_ids"]
    assert told == many.event_ids[-500:]
    assert len(body(many)) < 40_000


def test_bodies_stay_small() -> None:
    assert max(len(body(notification)) for notification in NOTIFICATIONS.values()) < 64 * 1024


@pytest.mark.parametrize(
    "line",
    ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!", f"{fakes.KEY}é", "x" + fakes.KEY],
)
def test_a_bad_key_is_named_by_line_and_not_shown(line: str) -> None:
    with pytest.raises(UsageError, match=r"^secret_file, line 2: expected") as caught:
        read_keys(f"{fakes.KEY}\n{line}", "secret_file")
    assert "MfKQ" not in str(caught.value)
