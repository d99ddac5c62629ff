"""`stream-interp alerts tail`."""

from __future__ import annotations

import json

import msgspec
import pytest
from confluent_kafka.admin import NewTopic

from stream_interp.cli import main
from stream_interp.cli.alert_text import line
from stream_interp.kafka import client
from stream_interp.kafka.subscribe import TOPIC
from stream_interp.records.alert import Alert, FeatureDrift, Position, ScoreDrift, encode_alert
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings


def make_alert(k=0, model_id="credit"):
    return Alert(
        event_id=f"e{k}",
        lane=Lane(model_id=model_id, hook_name="layer.15", model_revision="v1"),
        incident_id="i",
        transition="opened",
        severity="critical",
        status="critical",
        cause_hint="features and t0",
        features_drifted=554,
        features=[
            FeatureDrift(
                feature=f, direction="up", log_e=21.0, log_threshold=20.6, rate_baseline=0.01, rate_now=0.52,
                detected_request=9,
            )
            for f in range(20)
        ],
        scores=[
            ScoreDrift(
                score="mean_sq_norm", direction="down", group="t0", log_e=13.0, log_threshold=12.0,
                baseline_median=1.0, now_median=0.5, detected_request=7,
            )
        ],
        request=9,
        at_ms=1_800_000_000_000,
        position=Position(partition=0, offset=k),
        explanations_reliable=False,
    )  # fmt: skip


@pytest.fixture
def run(kafka_bootstrap, topic_prefix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kafka = KafkaSettings(bootstrap=kafka_bootstrap)
    admin, name = client.admin(kafka), topic_prefix + TOPIC
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    producer = client.producer(client.producer_config(kafka))
    for k in range(4):
        producer.produce(name, encode_alert(make_alert(k, "credit" if k % 2 else "fraud")).value)
    producer.flush(30)

    def run(*words):
        code = main(
            ["alerts", "tail", "--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}", *words]
        )
        return code, capsys.readouterr()

    return run


def test_a_line_has_time_severity_lane_cause_features_and_scores():
    parts = line(make_alert()).split(" | ")
    assert parts[:5] == [
        "2027-01-15T08:00:00.000Z", "critical", "opened", "default/credit@v1 layer.15", "request 9",
    ]  # fmt: skip
    assert parts[5] == "cause features and t0"
    assert parts[6].startswith("554 features: #0 up 1.00%→52.00% #1 up")
    assert parts[6].count("#") == 5
    assert parts[7:] == ["scores: mean_sq_norm down", "explanations unreliable"]


def test_json_lines_are_the_alerts(run):
    code, captured = run("--json", "--from-beginning", "--limit", "3")
    assert code == 0
    assert [msgspec.json.decode(row, type=Alert) for row in captured.out.splitlines()] == [
        make_alert(0, "fraud"), make_alert(1), make_alert(2, "fraud"),
    ]  # fmt: skip
    assert "following" in captured.err


def test_timeout_ends_it_and_the_filter_holds(run):
    code, captured = run("--json", "--from-beginning", "--model-id", "credit", "--timeout", "3")
    assert code == 0
    assert [json.loads(row)["event_id"] for row in captured.out.splitlines()] == ["e1", "e3"]


def test_without_from_beginning_the_past_is_silent(run):
    assert run("--timeout", "1")[1].out == ""


def test_people_get_one_line_each(run):
    captured = run("--from-beginning", "--limit", "4")[1]
    assert len(captured.out.splitlines()) == 4
