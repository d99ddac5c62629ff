"""What Alertmanager, Slack, PagerDuty and the dead man's switch are told, field by field, and their limits."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from stream_interp.notify.notification import Notification
from stream_interp.notify.sinks import Pinger, make_sink
from stream_interp.notify.sinks.alertmanager import alerts, labels
from stream_interp.notify.sinks.pagerduty import event
from stream_interp.notify.sinks.slack import escaped, message
from tests.notify.sinks import fakes
from tests.notify.sinks.cases import ALERT, HOSTILE, NOTIFICATIONS, PLAIN, TEST, hostile

EVERY = pytest.mark.parametrize("notification", NOTIFICATIONS.values(), ids=NOTIFICATIONS)


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def transition(name: str, **changes: Any) -> Notification:
    return replace(PLAIN, alert=replace(ALERT, transition=name), **changes)


def firing(posted: list[dict[str, Any]], now_s: float = PLAIN.at_ms / 1000) -> list[str]:
    return [alert["labels"]["severity"] for alert in posted if seconds(alert["endsAt"]) > now_s]


def test_alertmanager_keeps_an_alerts_identity_until_it_is_resolved() -> None:
    opened = alerts(transition("opened", severity="warning"))
    escalated = alerts(transition("escalated"))
    resolved = alerts(transition("resolved", phase="resolved", severity="info"))
    assert [firing(posted) for posted in (opened, escalated, resolved)] == [["warning"], ["critical"], []]
    ended = {tuple(sorted(alert["labels"].items())) for alert in [*escalated[1:], *resolved]}
    assert {tuple(sorted(alert["labels"].items())) for alert in [*opened, *escalated]} <= ended
    assert len(alerts(transition("opened"))) == 1  # nothing told before: nothing to end
    assert firing(alerts(TEST), now_s=TEST.at_ms / 1000 + 301) == []


def test_alertmanager_labels_hold_no_feature_and_links_go_where_it_shows_them() -> None:
    (alert,) = alerts(PLAIN)
    assert set(alert["labels"]) == {"alertname", "story", "severity", "tenant", "model_id", "hook_name", "lane_id"}
    assert "424242" not in json.dumps(alert["labels"])
    assert alert["generatorURL"] == PLAIN.links["ui"]
    assert "runbook_url" not in alert["annotations"]  # a path of the source tree is no address
    assert alert["startsAt"] == "2023-11-14T22:13:10.000Z"


@EVERY
def test_alertmanager_takes_what_is_posted(notification: Notification) -> None:
    for alert in alerts(notification):
        assert seconds(alert["startsAt"]) <= seconds(alert["endsAt"])
        assert all(len(value) <= 200 for value in alert["labels"].values())
        assert all(re.fullmatch("[a-z_]+", name) for name in (*alert["labels"], *alert["annotations"]))
    assert labels(notification) == labels(replace(notification, kind="repeat", severity="info", title="x", id="y"))


def test_alertmanager_is_not_told_of_an_acknowledgement_that_names_no_lane(tmp_path: Path) -> None:
    async def run() -> int:
        async with fakes.http_fake() as fake:
            sink = make_sink(
                fakes.settings("alertmanager", fake.port, tmp_path, url=f"http://{fakes.HOST}:{fake.port}/"),
                fakes.tools(),
            )
            await sink.send(replace(PLAIN, kind="annotation", phase="acknowledged", alert=None))
            assert not fake.got
            await sink.send(PLAIN)
            assert [got.path for got in fake.got] == ["/api/v2/alerts"]
            return len(fake.got)

    assert asyncio.run(run()) == 1


@EVERY
def test_slack_limits_and_no_mention(notification: Notification) -> None:
    told = message(notification)
    assert 1 <= len(told["blocks"]) <= 50
    for text in [told["text"], *(block["text"]["text"] for block in told["blocks"])]:
        assert 1 <= len(text) <= 3_000
        assert not re.search(r"<[!@#]", text)
        assert re.fullmatch(r"(?s)(?:[^&]|&(?:amp|lt|gt);)*", text), "an entity is cut"
    links = [block["text"]["text"] for block in told["blocks"] if block["text"]["type"] == "mrkdwn"]
    assert all(re.fullmatch(r"<https?://[^<>|]+\|[^<>|]*>(?: · <https?://[^<>|]+\|[^<>|]*>)*", text) for text in links)


def test_slack_shows_a_hostile_name_as_it_is_written() -> None:
    told = message(hostile(HOSTILE["html"]))
    assert (
        "&lt;!channel&gt; &lt;@U123&gt; &lt;https://evil.test|runbook&gt; &amp;amp;"
        in told["blocks"][1]["text"]["text"]
    )
    assert (told["link_names"], told["unfurl_links"]) == (False, False)


def test_slack_cuts_between_entities() -> None:
    assert escaped("&" * 10, 12) == "&amp;&amp;…"
    assert escaped("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("phase", "action"), [("firing", "trigger"), ("acknowledged", "acknowledge"), ("resolved", "resolve")]
)
def test_pagerduty_follows_the_story(phase: str, action: str) -> None:
    told = event(replace(PLAIN, phase=phase))
    assert (told["event_action"], told["dedup_key"]) == (action, PLAIN.story)
    payload = told["payload"]
    assert (payload["severity"], payload["source"], payload["component"]) == (
        "critical",
        "default/credit-risk",
        "hidden",
    )
    assert (told["client_url"], told["links"]) == (PLAIN.links["ui"], [{"href": PLAIN.links["ui"], "text": "ui"}])


@EVERY
def test_pagerduty_limits(notification: Notification) -> None:
    told = event(notification)
    assert 1 <= len(told["dedup_key"]) <= 255
    assert 1 <= len(told["payload"]["summary"]) <= 1_024
    assert len(told["payload"]["source"]) >= 1
    assert told["payload"]["severity"] in {"critical", "error", "warning", "info"}
    assert len(json.dumps(told)) < 512 * 1024


def test_pagerduty_long_stories_stay_apart() -> None:
    keys = {event(replace(PLAIN, story="s" * 300 + end))["dedup_key"] for end in "ab"}
    assert len(keys) == 2


def test_pagerduty_sends_its_key_in_the_body_alone(tmp_path: Path) -> None:
    async def run() -> fakes.Got:
        async with fakes.http_fake() as fake:
            await make_sink(fakes.settings("pagerduty", fake.port, tmp_path), fakes.tools()).send(PLAIN)
            return fake.got[0]

    got = asyncio.run(run())
    assert json.loads(got.body)["routing_key"] == fakes.PASSWORD
    assert fakes.PASSWORD not in str(got.headers)


def test_the_dead_mans_switch_is_called_by_ping_and_by_a_test(tmp_path: Path) -> None:
    async def run() -> list[fakes.Got]:
        async with fakes.http_fake() as fake:
            sink = make_sink(fakes.settings("deadman", fake.port, tmp_path), fakes.tools())
            assert isinstance(sink, Pinger)
            await sink.send(PLAIN)
            assert not fake.got
            await sink.ping()
            await sink.send(TEST)
            return fake.got

    got = asyncio.run(run())
    assert [(call.method, call.path) for call in got] == [("GET", fakes.PATH)] * 2
    assert {call.headers["authorization"] for call in got} == {f"Bearer {fakes.PASSWORD}"}


def test_only_the_dead_mans_switch_wants_pings(tmp_path: Path) -> None:
    pingers = [
        kind
        for kind in ("webhook", "alertmanager", "slack", "pagerduty", "email", "deadman")
        if isinstance(make_sink(fakes.settings(kind, 1, tmp_path), fakes.tools()), Pinger)
    ]
    assert pingers == ["deadman"]


def test_slacks_address_may_come_from_a_file(tmp_path: Path) -> None:
    async def run() -> str:
        async with fakes.http_fake() as fake:
            made = fakes.settings("slack", fake.port, tmp_path)
            secret_file = fakes.secret_file(tmp_path, made.url)
            await make_sink(replace(made, url="", secret_file=secret_file), fakes.tools()).send(PLAIN)
            return fake.got[0].path

    assert asyncio.run(run()) == fakes.PATH
