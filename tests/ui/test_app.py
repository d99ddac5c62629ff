from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from msgspec import structs

from stream_interp.errors import UsageError
from stream_interp.records.alert import CauseEvidence, Said, encode_alert
from stream_interp.records.annotation import encode_annotation
from stream_interp.records.cut import encode_cut
from stream_interp.records.heartbeat import encode_heartbeat
from stream_interp.records.status import encode_status
from stream_interp.records.window import SCORE_TITLES
from stream_interp.ui.feed import FeedState
from stream_interp.ui.model.model import Model
from stream_interp.ui.server import parse_listen, serving
from stream_interp.ui.web.app import Site, make_app
from stream_interp.ui.web.pages import runbook_of
from tests.ui.records import (
    NOW_MS,
    StillSource,
    ack,
    baseline,
    beat,
    card,
    cut,
    drift,
    feed,
    give_story,
    incident_id,
    lane,
    status,
    story,
)

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m{{7*7}}\u202e"
HOSTILE = NASTY + "\n" + "y" * 10_000
PATHS = ("/", "/incidents", "/lanes/{lane}", "/incidents/{incident}", "/baselines", "/cuts", "/processes")


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def paths(of_lane: str, of_incident: str) -> list[str]:
    return [path.format(lane=of_lane, incident=quote(of_incident, safe="")) for path in PATHS]


ALL = paths(lane().lane_id, incident_id(lane(), 200))


@pytest.fixture
def hostile_page() -> Iterator[tuple[str, list[str]]]:
    """A page on which every name, label, author and reason is hostile, and its paths."""
    model = Model()
    name = HOSTILE[:3_000]  # a control record refuses a lane of longer names
    names = {"tenant": name, "model_id": name, "hook_name": name, "model_revision": name}
    of = lane(0, sae_fingerprint=name, **names)
    found = [
        CauseEvidence(cause=HOSTILE, points=points, text=HOSTILE, numbers={HOSTILE: 1.0}) for points in (True, False)
    ]
    told = [
        structs.replace(
            a,
            incident_id=NASTY,
            note=HOSTILE,
            runbook="javascript:alert(1)",
            cause_hint=HOSTILE,
            causes=found,
            by_effect=[drift(2, 0.1, 0.9, label=HOSTILE)],
            evidence_request=9,
        )
        for a in story(
            of, 1, opened_at_ms=NOW_MS - 60_000, resolved=False, features=[drift(1, 0.1, 0.4, label=HOSTILE)]
        )
    ]
    said = Said(author=HOSTILE, reason=HOSTILE, at_ms=NOW_MS - 1, until_ms=NOW_MS + 10**17)
    feed(model, "interp.alerts", *map(encode_alert, told))
    feed(model, "interp.alerts", encode_annotation(ack(of, NASTY, HOSTILE, HOSTILE)))
    bad = status(of, "critical", reason=HOSTILE, incident=card(told[-1], said), silence=said, labels=HOSTILE,
                 learning=HOSTILE, sinks_failing=[HOSTILE], second_opinions={HOSTILE: 3})  # fmt: skip
    feed(model, "interp.status", encode_status(bad))
    feed(model, "interp.control", *baseline(of, NOW_MS - 9_000_000, HOSTILE, HOSTILE))
    beats = beat(HOSTILE, "notify", partitions=[HOSTILE], counters={HOSTILE: 1}, sinks_failing=[HOSTILE])
    feed(model, "interp.heartbeat", encode_heartbeat(beats))
    feed(
        model,
        "interp.cuts",
        encode_cut(structs.replace(cut(0, 0, 10, of, rejected_by_reason={HOSTILE: 1}), topic=HOSTILE)),
    )
    assert not model.unreadable
    site = Site(StillSource(model, FeedState(True, HOSTILE)), 15_000, now_ms=lambda: NOW_MS)
    with serving(make_app(site), "127.0.0.1", 0) as url:
        yield url, paths(of.lane_id, NASTY)


def test_an_incident_says_what_was_considered() -> None:
    model, told = Model(), story(lane(), 1, opened_at_ms=NOW_MS - 60_000, resolved=False)
    found = [
        CauseEvidence(cause="pipeline", points=True, text="It is in input partition <1> alone."),
        CauseEvidence(cause="sae_health", points=False, text="It crossed no threshold."),
    ]
    give_story(model, [structs.replace(a, causes=found, evidence_request=47_980) for a in told])
    site = Site(StillSource(model, FeedState(True, "")), 15_000, now_ms=lambda: NOW_MS)
    with serving(make_app(site), "127.0.0.1", 0) as url:
        body = ask(url, f"/incidents/{told[0].incident_id}")[2]
    assert "<b>pipeline</b>: It is in input partition &lt;1&gt; alone." in body
    assert "<li>sae health: It crossed no threshold.</li>" in body
    assert "47,980" in body


@pytest.mark.parametrize("path", ALL)
def test_every_page_and_its_json_answer_with_all_guards(big_page: str, path: str) -> None:
    code, headers, body = ask(big_page, path)
    assert code == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert not re.search(r"\bon[a-z]+=|<style|style=|<script(?! src=\"/static/)|https?://(?!runbooks\.example)", body)
    assert len(body) < 200_000
    code, headers, body = ask(big_page, "/api/fleet" if path == "/" else f"/api{path}")
    assert (code, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["schema_version"] == 1


def test_the_first_view_of_50_lanes_is_small(big_page: str) -> None:
    page = ask(big_page, "/")[2]
    parts = [page, *(ask(big_page, link)[2] for link in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page)))]
    assert len(parts) == 4
    assert sum(len(part.encode()) for part in parts) < 200_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(big_page: str, method: str) -> None:
    code, headers, _ = ask(big_page, "/", method)
    assert (code, headers["allow"]) == (405, "GET, HEAD")


def test_head_has_no_body(big_page: str) -> None:
    assert ask(big_page, "/", "HEAD")[::2] == (200, "")


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8640", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8640", 200), ("10.0.0.7", 200),
        ("drift.example", 200), ("drift.example:443", 200), ("evil.example", 421), ("127.0.0.1.evil.example", 421),
        ("localhost:80@evil.example", 421), ("", 421), ("localhost:x", 421), ("drift.example.evil", 421),
    ],
)  # fmt: skip
def test_a_strangers_name_that_points_here_is_refused(big_page: str, host: str, code: int) -> None:
    assert ask(big_page, "/api/fleet", Host=host)[0] == code


@pytest.mark.parametrize("path", ["/lanes/none", "/incidents/none", "/x", "/static/../app.py", "/static/x.py"])
def test_what_is_not_there(big_page: str, path: str) -> None:
    assert ask(big_page, path)[0] == 404
    code, _, body = ask(big_page, "/api" + path)
    assert (code, json.loads(body)["error"]) == (404, "not found")


def test_the_json_of_a_view_is_of_the_same_page_and_search(big_page: str) -> None:
    body = ask(big_page, f"/incidents?lane={lane().lane_id}&page=2&x=1")[2]
    assert f'href="/api/incidents?lane={lane().lane_id}&amp;page=2"' in body
    incidents = json.loads(ask(big_page, f"/api/incidents?lane={lane().lane_id}&page=2")[2])["incidents"]
    assert (incidents["page"], incidents["total"]) == (2, 200)
    assert 'href="/api/fleet?q=%22%3E%3Cb%3E"' in ask(big_page, "/?q=" + quote('"><b>'))[2]


def test_a_link_that_comes_before_the_topics_are_read_is_not_called_mistyped() -> None:
    for caught_up, said in ((False, "still reading the topics"), (True, "the id may be mistyped")):
        site = Site(StillSource(Model(), FeedState(caught_up, "")), 15_000, now_ms=lambda: NOW_MS)
        with serving(make_app(site), "127.0.0.1", 0) as url:
            code, _, body = ask(url, "/incidents/abc")
            assert (code, said in body) == (404, True)


def test_hostile_text_is_inert_and_cut_on_every_page(hostile_page: tuple[str, list[str]]) -> None:
    url, its_paths = hostile_page
    for path in its_paths:
        code, _, body = ask(url, path)
        assert code == 200, path
        assert "<script>alert" not in body
        assert "<img" not in body
        assert "&amp;lt;" not in body  # escaped once
        assert "\x1b" not in body
        assert "\u202e" not in body
        assert "&lt;script&gt;alert(1)" in body
        assert "{{7*7}}" in body or "{{7*" not in body
        assert "yyyyyyyyyy" * 40 not in body
        assert 'href="javascript:' not in body
        assert len(body) < 60_000
        code, headers, _ = ask(url, "/api/fleet" if path == "/" else f"/api{path}")
        assert (code, headers["content-type"]) == (200, "application/json")


def test_where_features_have_no_label_the_pages_that_list_them_say_why() -> None:
    model, of, why = Model(), lane(), "labels.json is for SAE ffffffffffff, this lane has 3b7e1c04d2aa"
    told = story(of, 1, opened_at_ms=NOW_MS - 60_000, resolved=False, features=[drift(1, 0.1, 0.4)])
    feed(model, "interp.alerts", *map(encode_alert, told))
    feed(model, "interp.status", encode_status(status(of, "critical", incident=card(told[-1]), labels=why)))
    site = Site(StillSource(model, FeedState(True, "")), 15_000, now_ms=lambda: NOW_MS)
    with serving(make_app(site), "127.0.0.1", 0) as url:
        for path in (f"/lanes/{of.lane_id}", f"/incidents/{told[0].incident_id}"):
            assert f"Features without labels: {why}" in ask(url, path)[2], path


def test_what_a_page_is_asked_is_inert_too(big_page: str) -> None:
    body = ask(big_page, "/?q=" + quote('"><script>alert(1)</script>') + "&page=" + "9" * 400)[2]
    assert "<script>alert" not in body
    assert "&#34;&gt;&lt;script&gt;" in body
    assert "No lane matches" in body
    assert ask(big_page, "/?page=-3")[0] == 200


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (FeedState(False, ""), "Still reading the topics"),
        (FeedState(True, "Kafka at x: gone"), "no longer hears from Kafka"),
    ],
)
def test_a_page_that_is_not_current_says_so(state: FeedState, said: str) -> None:
    site = Site(StillSource(Model(), state), 15_000, now_ms=lambda: NOW_MS)
    with serving(make_app(site), "127.0.0.1", 0) as url:
        assert said in ask(url, "/")[2]
        assert "No lane yet" in ask(url, "/")[2]


@pytest.mark.parametrize("listen", ["0.0.0.0:8640", "[::]:8640", "192.168.1.4:80", "example.com:80", ":80"])
def test_other_machines_need_a_word(listen: str) -> None:
    with pytest.raises(UsageError, match=r"--allow-remote|expected HOST:PORT"):
        parse_listen(listen, allow_remote=False)


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1", ":1"])
def test_no_address(listen: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_listen(listen, allow_remote=True)


def test_addresses() -> None:
    assert parse_listen("localhost:0", allow_remote=False) == ("localhost", 0)
    assert parse_listen("[::1]:8640", allow_remote=False) == ("::1", 8640)
    assert parse_listen("0.0.0.0:8640", allow_remote=True) == ("0.0.0.0", 8640)


def test_a_taken_port_is_a_usage_error(big_page: str) -> None:
    with (
        pytest.raises(UsageError, match="choose another port"),
        serving(lambda *_: None, "127.0.0.1", urlsplit(big_page).port or 0),
    ):  # type: ignore[arg-type, return-value]
        pass


def test_runbooks() -> None:
    assert runbook_of("https://r.example/", "data_shift.md", "x") == "https://r.example/data_shift.md"
    assert runbook_of("deploy/runbooks", "", "blind") == "deploy/runbooks/blind.md"
    assert runbook_of("deploy/runbooks", "../../etc/passwd", "data_shift") == "deploy/runbooks/data_shift.md"
    assert runbook_of("deploy/runbooks", "javascript:alert(1)", "<b>") == "deploy/runbooks/"


def test_a_score_is_said_in_words(big_page: str) -> None:
    body = ask(big_page, f"/incidents/{incident_id(lane(), 200)}")[2]
    assert SCORE_TITLES["mahalanobis_sq"] in body
