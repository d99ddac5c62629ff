"""Orders and baselines on a real Kafka, without DETECT: what is written, what is refused, what is said."""

from __future__ import annotations

import json
import time

import pytest
from msgspec import structs

from stream_interp.cli import main, ordering
from stream_interp.kafka import client
from stream_interp.kafka.control import newest_version, publish_controls, read_controls
from stream_interp.kafka.story import read_lane_events
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.alert import alert_state, encode_alert, encode_alert_state
from stream_interp.records.annotation import encode_annotation
from stream_interp.records.control import read_order
from stream_interp.records.lane import Lane
from stream_interp.records.status import encode_status
from stream_interp.settings import KafkaSettings
from tests.topics.samples import ALERT, ANNOTATION, BASELINE, LANE, PROJECTOR, STATUS

pytestmark = pytest.mark.integration

OPEN = alert_state(structs.replace(ALERT, incident_id="ab" * 8, transition="opened"))
ENDED = alert_state(structs.replace(ALERT, incident_id="cd" * 8, transition="resolved"))
BLIND = alert_state(structs.replace(ALERT, incident_id="ef" * 8, transition="blind", status="blind"))
HOSTILE = Lane(model_id="\x1b[2J<b>" + "m" * 10_000, hook_name="h\n\u202e", tenant="[bold]t")
FAR_AHEAD = 4_000_000_000_000


@pytest.fixture
def kafka(kafka_bootstrap, topic_prefix):
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    apply_topics(kafka, {"interp.windows": 2}, replication=1)
    odd = structs.replace(OPEN, lane=HOSTILE, incident_id="99" * 8)
    write(kafka, "interp.alert-state", *map(encode_alert_state, (OPEN, ENDED, BLIND, odd)))
    write(kafka, "interp.status", encode_status(structs.replace(STATUS, lane=LANE)))
    return kafka


def write(kafka, topic, *envelopes):
    producer = client.producer(client.producer_config(kafka))
    for envelope in envelopes:
        producer.produce(kafka.topic_prefix + topic, key=envelope.key, value=envelope.value, headers=envelope.headers)
    assert producer.flush(30) == 0


@pytest.fixture
def run(kafka, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ordering, "WAIT_S", 1.0)

    def run(*words):
        code = main([*words, "--bootstrap", kafka.bootstrap, "--set", f"kafka.topic_prefix={kafka.topic_prefix}"])
        return code, capsys.readouterr()

    return run


def test_an_order_that_no_detect_confirms_lies_on_kafka_and_exits_4(run, kafka):
    code, said = run("alerts", "ack", "abab", "--for", "2h", "--reason", "looking", "--author", "ada", "--json")
    assert code == 4
    assert json.loads(said.out)["taken_in"] is False
    assert "no DETECT has confirmed it within 1 s" in " ".join(said.err.split())
    [record] = read_controls(kafka)
    order = read_order(record)
    assert (order.kind, order.lane, order.incident_id) == ("ack", LANE, OPEN.incident_id)
    assert order.until_ms - order.version == pytest.approx(7_200_000, abs=5_000)
    assert (record.manifest.author, record.manifest.reason) == ("ada", "looking")


def test_without_waiting_it_is_published_and_exits_0(run, kafka):
    code, said = run("alerts", "silence", LANE.lane_id[:6], "--for", "3d", "--reason", "move", "--no-wait")
    assert code == 0
    assert said.out.rstrip().endswith(": published")
    assert "for the first 24 h only" in said.err
    assert run("alerts", "unsilence", LANE.lane_id, "--no-wait")[0] == 0
    assert run("alerts", "resolve", OPEN.incident_id, "--reason", "r", "--no-wait")[0] == 0
    assert run("baseline", "relearn", LANE.lane_id, "--reason", "wanted", "--no-wait")[0] == 0
    orders = list(map(read_order, read_controls(kafka)))
    assert [order.kind for order in orders] == ["silence", "unsilence", "resolve", "relearn"]
    assert [o.version for o in orders] == sorted({o.version for o in orders})


def test_a_version_is_newer_than_every_other_of_its_lane_even_if_its_clock_was_ahead(run, kafka):
    ahead = round(time.time() * 1000) + 3_600_000
    forged = [structs.replace(BASELINE.manifest, version=version) for version in (FAR_AHEAD, ahead)]
    publish_controls(kafka, [structs.replace(BASELINE, manifest=manifest) for manifest in forged])
    assert newest_version(kafka, LANE.lane_id) == ahead
    assert run("alerts", "ack", OPEN.incident_id, "--no-wait")[0] == 0
    found = [record.manifest.version for record in read_controls(kafka)]
    assert found == [ahead, ahead + 1]  # years ahead is no version: nothing could ever be newer


def test_what_cannot_be_ordered_is_said(run):
    code, said = run("alerts", "ack", "zz", "--no-wait")
    assert code == 2
    assert f"{OPEN.incident_id} (opened, " in said.err
    assert ENDED.incident_id not in said.err
    assert run("alerts", "ack", ENDED.incident_id, "--no-wait")[0] == 2
    code, said = run("alerts", "resolve", BLIND.incident_id, "--reason", "r", "--no-wait")
    assert code == 2
    assert "it ends when its cause does" in " ".join(said.err.split())
    code, said = run("alerts", "silence", "zz", "--for", "1h", "--reason", "r")
    assert code == 2
    assert LANE.lane_id in said.err
    assert said.err.replace("\n", "").isprintable()


def test_the_list_shows_what_is_open_with_hostile_names_inert(run):
    code, said = run("alerts", "list")
    assert code == 0
    assert said.out.replace("\n", "").isprintable()
    assert "[bold]t" in said.out
    assert [row.split()[0] for row in said.out.splitlines()[1:]] == sorted(
        [OPEN.incident_id, BLIND.incident_id, "99" * 8]
    )
    assert max(map(len, said.out.splitlines())) < 1_000
    listed = json.loads(run("alerts", "list", "--all", "--limit", "2", "--json")[1].out)
    assert (len(listed["incidents"]), listed["total"]) == (2, 4)


def test_show_tells_the_story_of_its_lane_and_leaves_out_what_cannot_be_read(run, kafka, caplog):
    opened = structs.replace(ALERT, incident_id=OPEN.incident_id, transition="opened")
    ack = structs.replace(ANNOTATION, incident_id=OPEN.incident_id)
    poison = encode_alert(ALERT)._replace(value=b"\xff{")
    write(kafka, "interp.alerts", encode_alert(opened), poison, encode_annotation(ack))
    assert read_lane_events(kafka, LANE.lane_id) == [opened, ack]
    shown = json.loads(run("alerts", "show", "abab", "--json")[1].out)
    assert [event["type"] for event in shown["story"]] == ["transition", "annotation"]
    assert run("alerts", "show", "9999")[1].out.replace("\n", "").isprintable()
    assert "left out offset" in caplog.text


def test_promotion_publishes_both_in_one_new_version(run, kafka):
    publish_controls(kafka, [PROJECTOR, BASELINE])
    was = BASELINE.manifest.version
    code, said = run(
        "baseline", "promote", LANE.lane_id, str(was), "--reason", "better", "--author", "ada", "--no-wait", "--json"
    )
    assert code == 0, said.err
    version = json.loads(said.out)["version"]
    assert version > was
    cards = json.loads(run("baseline", "list", "--json")[1].out)["baselines"]
    assert [(c["version"], c["origin"], c["projector_version"]) for c in cards][1] == (version, was, version)
    assert (cards[1]["author"], cards[1]["reason"]) == ("ada", f"promotion to {was}: better")
    assert [c.manifest.kind for c in read_controls(kafka)][2:] == ["projector", "baseline"]
    assert "ada (as claimed)" in run("baseline", "list")[1].out


def test_a_baseline_whose_projector_is_gone_is_not_promoted(run, kafka):
    publish_controls(kafka, [BASELINE])
    code, said = run("baseline", "promote", LANE.lane_id, str(BASELINE.manifest.version), "--reason", "r", "--no-wait")
    assert code == 6
    assert "which is not on interp.control" in " ".join(said.err.split())
    assert len(read_controls(kafka)) == 1


def test_a_record_that_is_no_control_record_stops_nobody(run, kafka, caplog):
    publish_controls(kafka, [PROJECTOR, BASELINE])
    key = BASELINE.manifest.key.encode() + b"/manifest"
    bad = encode_alert(ALERT)
    write(kafka, "interp.control", bad._replace(key=key, value=b"{}"), bad._replace(key=b"\xff/\xff"))
    assert [c["version"] for c in json.loads(run("baseline", "list", "--json")[1].out)["baselines"]] == [
        BASELINE.manifest.version
    ]
    assert "left out offset" in caplog.text
