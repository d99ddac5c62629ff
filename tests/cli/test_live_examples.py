"""`stream-interp examples`."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.admin import NewTopic

from stream_interp.cli import main
from stream_interp.cli.live_examples import TOPIC, newest
from stream_interp.kafka import client
from stream_interp.records.example import Example, encode_example
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings

LANE, OTHER = (Lane(model_id=name, hook_name="h", sae_fingerprint="f" * 64) for name in ("credit", "fraud"))
HOSTILE = "\x1b[2J[red]x[/red]\n\u202e<b>" + "y" * 10_240


def example(feature, request, lane=LANE, at_ms=1_800_000_000_000, hashed=False):
    return Example(lane=lane, feature=feature, request_id=request, activation=1.5, at_ms=at_ms, hashed=hashed)


def test_the_last_example_of_each_feature_counts_and_the_newest_comes_first():
    told = [
        example(1, "old", at_ms=1), example(2, "two", at_ms=2), example(1, "new", at_ms=3),
        example(1, "elsewhere", OTHER, at_ms=4),
    ]  # fmt: skip
    values = [*(encode_example(e).value for e in told), b"no json", None]
    lanes, found, unreadable = newest(values, LANE.lane_id[:6], None)
    assert {lane.lane_id for lane in lanes} == {LANE.lane_id, OTHER.lane_id}
    assert [(e.feature, e.request_id) for e in found] == [(1, "new"), (2, "two")]
    assert unreadable == 2
    assert [e.request_id for e in newest(values, LANE.lane_id, 2)[1]] == ["two"]


@pytest.fixture
def run(kafka_bootstrap, topic_prefix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kafka = KafkaSettings(bootstrap=kafka_bootstrap)
    admin, name = client.admin(kafka), topic_prefix + TOPIC
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    producer = client.producer(client.producer_config(kafka))
    for told in (example(1, "old", at_ms=1), example(1, HOSTILE), example(7, "ab" * 32, hashed=True)):
        producer.produce(name, encode_example(told).value)
    producer.flush(30)

    def run(*words):
        code = main(["examples", "--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}", *words])
        return code, capsys.readouterr()

    return run


def test_a_table_with_hostile_ids_inert(run):
    code, said = run(LANE.lane_id[:5])
    assert code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["feature", "request", "activation", "window", "closed", "at"]
    assert not set(said.out) & {"\x1b", "\u202e"}
    assert "\ufffd[2J[red]x[/red] \ufffd<b>yyy" in said.out
    assert said.out.count("y") < 520
    assert "ab" * 32 in said.out
    assert "old" not in said.out
    assert "hex HMAC-SHA256" in said.err


def test_json_and_one_feature(run):
    code, said = run(LANE.lane_id, "--feature", "7", "--json")
    [found] = json.loads(said.out)["examples"]
    assert (code, found["feature"], found["hashed"]) == (0, 7, True)
    code, said = run(LANE.lane_id, "--feature", "8")
    assert (code, said.out) == (0, "no example of feature 8 yet\n")


def test_an_unknown_lane_is_told_with_the_known_ones(run):
    code, said = run("zz")
    assert code == 2
    assert "sites.examples is hashed or plain" in said.err.replace("\n", " ")
    assert LANE.lane_id in said.err


def test_an_empty_topic_says_which_setting_makes_examples(kafka_bootstrap, topic_prefix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    admin, name = client.admin(KafkaSettings(bootstrap=kafka_bootstrap)), topic_prefix + TOPIC
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    assert main(["examples", "m", "--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}"]) == 2
    assert 'no site has sites.examples = "hashed" or "plain"' in " ".join(capsys.readouterr().err.split())
