"""Which addresses may be called. No test connects anywhere."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from stream_interp.notify.sinks import SinkError
from stream_interp.notify.sinks.guard import Allowed, Destination, is_public, read_allow
from stream_interp.settings import SinkSettings
from tests.notify.sinks import fakes

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.251", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff05::2",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.167.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def allowed(*entries: str) -> Allowed:
    return read_allow(SinkSettings(name="x", type="webhook", allow=list(entries)))


def called(host: str, found: list[str], *entries: str, encrypted: bool = True) -> list[str]:
    resolve, _ = fakes.resolver(found)
    destination = Destination(host, 443, encrypted, allowed(*entries))
    return asyncio.run(destination.addresses(resolve))  # type: ignore[arg-type]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    for host in ("name.test", address):
        with pytest.raises(SinkError, match="not a public address") as caught:
            called(host, [address])
        assert not caught.value.retry


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_called(address: str) -> None:
    assert is_public(ip_address(address))
    assert called("name.test", [address]) == [address]
    assert called(address, []) == [address]


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(SinkError, match=r"name\.test is 10\.0\.0\.1"):
        called("name.test", ["8.8.8.8", "10.0.0.1"])


@pytest.mark.parametrize(
    ("host", "found", "entry"),
    [
        ("am.internal", "10.0.0.1", "AM.Internal."),
        ("am.internal.", "10.0.0.1", "am.internal"),
        ("am.internal", "10.0.0.1", "10.0.0.0/8"),
        ("am.internal", "::ffff:10.0.0.1", "10.0.0.0/8"),
        ("am.internal", "fd00::7", "fd00::/8"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("::1", "", "[::1]"),
    ],
)
def test_what_is_allowed_is_called_even_without_encryption(host: str, found: str, entry: str) -> None:
    assert called(host, [found], entry, encrypted=False) == [found or host]


def test_an_allowed_network_does_not_open_others() -> None:
    with pytest.raises(SinkError, match="not a public address"):
        called("am.internal", ["10.0.0.1", "192.168.0.1"], "10.0.0.0/8")
    with pytest.raises(SinkError, match="not a public address"):
        called("evil-am.internal", ["10.0.0.1"], "am.internal")


def test_without_encryption_only_what_is_allowed() -> None:
    with pytest.raises(SinkError, match="without encryption") as caught:
        called("name.test", ["8.8.8.8"], encrypted=False)
    assert not caught.value.retry


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost"])
def test_other_spellings_of_this_machine_are_refused(spelling: str) -> None:
    """By the real resolver, which knows them all."""
    destination = Destination(spelling, 443, True, Allowed())
    with pytest.raises(SinkError, match="not a public address"):
        asyncio.run(destination.addresses(fakes.SinkTools().resolve))


def test_a_name_without_address_is_retried() -> None:
    with pytest.raises(SinkError, match="has no address") as caught:
        called("name.test", [])
    assert caught.value.retry
