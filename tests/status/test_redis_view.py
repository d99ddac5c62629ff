"""The view and its client on a real server."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
import redis

from stream_interp.embedded.valkey import EmbeddedValkey
from stream_interp.errors import DependencyUnreachable
from stream_interp.status.client import StatusClient
from stream_interp.status.connection import require_redis
from stream_interp.status.keys import lanes_key, status_key
from stream_interp.status.redis_view import RedisView

pytestmark = pytest.mark.integration

INTERVAL_S = 5.0


@pytest.fixture
def model_id():
    return f"credit-{uuid4().hex[:8]}"


@pytest.fixture
def now_ms():
    return time.time_ns() // 1_000_000


@pytest.fixture
def make(make_status, model_id, now_ms):
    return lambda state="ok", **fields: make_status(state, **({"model_id": model_id, "as_of_ms": now_ms} | fields))


@pytest.fixture
def view(redis_url):
    view = RedisView(redis_url, INTERVAL_S, timeout_s=1.0)  # a busy test machine is not a dead Redis
    yield view
    view.close()


@pytest.fixture
def client(redis_url):
    with StatusClient(redis_url) as client:
        yield client


@pytest.fixture
def own_valkey():
    with EmbeddedValkey() as server:
        yield server


def test_a_published_status_is_read_back_whole(view, client, redis_url, make, model_id):
    status = make("critical", reason="554 features", offset=41, sequence=3, partition=2)
    assert view.publish([status])
    answer = client.get(model_id)
    assert answer.state == "critical"
    assert answer.model_revision == "v1"
    assert answer.lanes[0].position == status.position
    assert 0 <= answer.lanes[0].age_s < 5
    plain = redis.Redis.from_url(redis_url, decode_responses=True).hgetall(status_key(status.lane.lane_id))
    assert {name: plain[name] for name in ("state", "hook_name", "model_revision", "tenant", "model_id")} == {
        "state": "critical", "hook_name": "layer.15", "model_revision": "v1", "tenant": "default", "model_id": model_id,
    }  # fmt: skip
    assert [plain[name] for name in ("partition", "offset", "sequence")] == ["2", "41", "3"]
    assert plain["as_of_ms"] == str(status.as_of_ms)


def test_keys_live_three_intervals(view, redis_url, make, model_id):
    status = make()
    view.publish([status])
    server = redis.Redis.from_url(redis_url)
    assert 14_000 < server.pttl(status_key(status.lane.lane_id)) <= 15_000
    assert server.pttl(lanes_key("default", model_id)) > 15_000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"offset": 9, "sequence": 5}, {"offset": 10, "sequence": 0}),
        ({"offset": 10, "sequence": 0}, {"offset": 10, "sequence": 1}),
        ({"partition": 0, "offset": 99}, {"partition": 1, "offset": 2}),
        ({"offset": 2**53 - 2}, {"offset": 2**53 - 1}),
    ],
)
def test_a_zombie_cannot_overwrite(view, redis_url, client, make, model_id, old, new):
    zombie = RedisView(redis_url, INTERVAL_S, timeout_s=1.0)
    assert view.publish([make("ok", **old)])
    assert view.publish([make("critical", **new)])
    assert zombie.publish([make("ok", **old)]), "refused, yet Redis is well"
    assert (zombie.counters.written, zombie.counters.refused) == (0, 1)
    assert client.get(model_id).state == "critical"


def test_publishing_the_same_again_is_harmless_and_renews_the_life(view, redis_url, make):
    status = make()
    server, key = redis.Redis.from_url(redis_url), status_key(status.lane.lane_id)
    view.publish([status])
    server.pexpire(key, 100)
    view.publish([status])
    assert server.pttl(key) > 1000
    assert view.counters.written == 2


def test_scripts_come_back_after_a_flush(view, redis_url, make):
    view.publish([make()])
    redis.Redis.from_url(redis_url).script_flush()
    assert view.publish([make(offset=1)])
    assert view.counters.written == 2


def test_expired_status_is_unknown(redis_url, client, make, model_id):
    RedisView(redis_url, 0.1, timeout_s=1.0).publish([make()])
    assert client.get(model_id).state == "ok"
    time.sleep(0.4)
    answer = client.get(model_id)
    assert answer.state == "unknown"
    assert [lane.hook_name for lane in answer.silent] == ["layer.15"]


def test_the_clock_makes_unknown_what_the_life_has_not_yet(redis_url, view, make, model_id, now_ms):
    view.publish([make()])
    later = StatusClient(redis_url, clock=lambda: now_ms / 1000 + 15.1)
    assert later.get(model_id).state == "unknown"


def test_newest_revision_hook_and_tenant(view, client, make, model_id, now_ms):
    view.publish(
        [
            make("ok", revision="v2", hook="h1", created_ms=now_ms - 1000),
            make("learning", revision="v2", hook="h2", created_ms=now_ms - 900),
            make("critical", revision="v1", hook="h1", created_ms=now_ms - 9000),
            make("warning", revision="v9", hook="h1", tenant="bank"),
        ]
    )
    assert (client.get(model_id).model_revision, client.get(model_id).state) == ("v2", "learning")
    assert [lane.lane.hook_name for lane in client.get(model_id).lanes] == ["h2", "h1"]
    assert client.get(model_id, hook_name="h1").is_ok
    assert client.get(model_id, model_revision="v1").state == "critical"
    assert client.get(model_id, tenant="bank").state == "warning"
    assert client.get(model_id, model_revision="v7").reason.endswith("no revision v7, only v1, v2")
    assert "nothing is known of hook h7" in client.get(model_id, hook_name="h7").reason
    assert client.get("never-heard-of").state == "unknown"


def test_without_a_creation_time_the_first_publication_counts_for_ever(view, client, make, model_id, now_ms):
    view.publish([make(revision="old", closed_at_ms=now_ms - 5000)])
    view.publish([make(revision="new", closed_at_ms=now_ms - 3000)])
    view.publish([make(revision="old", closed_at_ms=now_ms, offset=1)])
    assert client.get(model_id).model_revision == "new"


def test_lanes_silent_for_a_day_have_left_the_model(view, client, make, model_id, now_ms):
    view.publish([make(hook="gone", as_of_ms=now_ms - 24 * 3600 * 1000 - 1)])
    view.publish([make(hook="here")])
    answer = client.get(model_id)
    assert [lane.lane.hook_name for lane in answer.lanes] == ["here"]
    assert answer.is_ok


def test_names_that_share_an_index_key_are_kept_apart(view, client, make):
    salt = uuid4().hex[:8]
    view.publish([make("critical", tenant=f"a/{salt}", model_id="m"), make("ok", tenant="a", model_id=f"{salt}/m")])
    assert client.get(f"{salt}/m", tenant="a").state == "ok"
    assert client.get("m", tenant=f"a/{salt}").state == "critical"


def test_redis_killed_in_the_middle_and_back(own_valkey, make_status):
    view, client = RedisView(own_valkey.url, INTERVAL_S), StatusClient(own_valkey.url, timeout_s=0.5)

    def publish(offset):
        status = make_status("warning", offset=offset, as_of_ms=time.time_ns() // 1_000_000)
        started_s = time.monotonic()
        return view.publish([status]), time.monotonic() - started_s

    assert publish(0)[0]
    assert client.get("credit").state == "warning"
    own_valkey.kill()
    outcomes = [publish(offset) for offset in range(1, 200)]
    assert not any(written for written, _ in outcomes)
    assert max(took_s for _, took_s in outcomes) < 0.15
    assert client.get("credit").state == "unknown"
    assert "Redis at" in client.get("credit").reason
    own_valkey.start()
    deadline_s = time.monotonic() + 3 * INTERVAL_S
    while not publish(200)[0]:
        assert time.monotonic() < deadline_s, "not back within three intervals"
        time.sleep(0.1)
    assert client.get("credit").state == "warning"


def test_wrong_and_missing_password_are_said_as_such(own_valkey, make_status):
    admin = redis.Redis.from_url(own_valkey.url)
    admin.config_set("requirepass", "geheim")
    good = own_valkey.url.replace("://", "://:geheim@")
    bad = own_valkey.url.replace("://", "://:falsch@")
    require_redis(good)
    require_redis(own_valkey.url, password="geheim")
    for url in (bad, own_valkey.url):
        with pytest.raises(DependencyUnreachable, match="wrong or missing password") as caught:
            require_redis(url)
        assert "falsch" not in str(caught.value)
        assert "password" in StatusClient(url).get("credit").reason
        assert not RedisView(url, INTERVAL_S, timeout_s=1.0).publish([make_status()])
    assert RedisView(own_valkey.url, INTERVAL_S, password="geheim", timeout_s=1.0).publish([make_status()])


def test_a_password_that_nobody_asked_for(own_valkey):
    with pytest.raises(DependencyUnreachable, match="it has no password, but one was given"):
        require_redis(own_valkey.url.replace("://", "://:geheim@"))
