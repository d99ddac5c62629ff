"""A Redis that is not there, or hangs: cheap for DETECT, unknown for readers, exit 5 at start. No server."""

from __future__ import annotations

import itertools
import socket
import time

import pytest

from stream_interp.errors import DependencyUnreachable, UsageError
from stream_interp.status.client import StatusClient
from stream_interp.status.connection import address, require_redis
from stream_interp.status.redis_view import RedisView


@pytest.fixture
def hanging_url():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def dead_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"redis://user:geheim@127.0.0.1:{port}/0"


@pytest.mark.parametrize("which", ["hanging_url", "dead_url"])
def test_publish_returns_soon_and_false(request, which, make_status):
    view = RedisView(request.getfixturevalue(which), 5.0)
    started_s = time.monotonic()
    assert view.publish([make_status(), make_status(hook="h2")]) is False
    assert time.monotonic() - started_s < 0.15
    assert view.counters.lost == 2


def test_after_a_failure_redis_is_left_alone_with_doubling_pauses_up_to_the_interval(dead_url, make_status, caplog):
    now_s = [100.0]
    view = RedisView(dead_url, 5.0, clock=lambda: now_s[0])
    attempts, write = [], view._write
    view._write = lambda statuses: (attempts.append(now_s[0]), write(statuses))[1]
    for _ in range(1000):
        view.publish([make_status()])
        now_s[0] += 0.05
    pauses = [round(b - a, 2) for a, b in itertools.pairwise(attempts)]
    assert pauses[:5] == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0], abs=0.06)
    assert max(pauses) <= 5.06
    assert view.counters.lost == 1000
    assert len(caplog.records) == 1, "one warning an outage"
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("which", ["hanging_url", "dead_url"])
def test_readers_get_unknown(request, which):
    answer = StatusClient(request.getfixturevalue(which), timeout_s=0.2).get("credit")
    assert answer.state == "unknown"
    assert not answer.is_ok
    assert answer.age_s is None
    assert answer.reason.startswith("Redis at redis://127.0.0.1:")
    assert "geheim" not in answer.reason


def test_require_redis_names_the_address_without_credentials(dead_url):
    with pytest.raises(DependencyUnreachable) as caught:
        require_redis(dead_url)
    assert caught.value.exit_code == 5
    assert address(dead_url) in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_require_redis_does_not_hang(hanging_url):
    with pytest.raises(DependencyUnreachable, match=r"no answer within 0\.1 s"):
        require_redis(hanging_url, timeout_s=0.1)


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://u:geheim@h:1/0", "redis://h:port/0", "redis://:geheim/x@h:1/0"]
)
def test_not_an_address_is_a_usage_error(url):
    with pytest.raises(UsageError, match=r"redis\.url") as caught:
        StatusClient(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://u:geheim@h:1/0?ssl_ca_certs=x", "rediss://h:1/0"),
        ("redis://:geheim/x@h:1/0", "redis://h:1/0"),
        ("redis://:geheim@x@h:1/0", "redis://h:1/0"),
        ("redis://:geh?eim@h:1/0", "redis://(hidden)"),
        ("redis://h:1/0?password=geh@eim", "redis://(hidden)"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("localhost:6379", "localhost:6379"),
    ],
)
def test_no_part_of_a_password_is_shown(url, shown):
    assert address(url) == shown
