"""`stream-interp status`: exit codes, one JSON object, a table."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import pytest

from stream_interp.cli import main
from stream_interp.cli.status import exit_code
from stream_interp.records.alert import FeatureDrift, Position
from stream_interp.records.lane import Lane
from stream_interp.records.status import Coverage, Health, IncidentCard, Status
from stream_interp.status.judge import ANSWERS_WORST_FIRST, ModelStatus
from stream_interp.status.redis_view import RedisView

CODES = {
    None: {"integrity_error": 6, "blind": 4, "unknown": 4},
    "warning": {"integrity_error": 6, "blind": 4, "unknown": 4, "critical": 3, "warning": 3},
    "critical": {"integrity_error": 6, "blind": 4, "unknown": 4, "critical": 3},
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def publish(redis_url):
    model_id = f"credit-{uuid4().hex[:8]}"
    now_ms = time.time_ns() // 1_000_000

    def publish(state, hook="layer.15", **fields):
        lane = Lane(model_id=model_id, hook_name=hook, model_revision="v1")
        place = {"position": Position(partition=0, offset=1), "sequence": 1}
        status = Status(lane=lane, state=state, as_of_ms=now_ms, closed_at_ms=now_ms, **place, **fields)
        assert RedisView(redis_url, 5.0, timeout_s=1.0).publish([status])
        return model_id

    return publish


@pytest.mark.parametrize("fail_on", [None, "warning", "critical"])
@pytest.mark.parametrize("state", ANSWERS_WORST_FIRST)
def test_exit_codes(state, fail_on):
    answer = ModelStatus(tenant="t", model_id="m", model_revision=None, state=state, reason="")
    assert exit_code(answer, fail_on) == CODES[fail_on].get(state, 0)


def test_json_is_one_object_with_every_lane(publish, redis_url, capsys):
    publish("ok", hook="h1")
    model_id = publish("critical", hook="h2", reason="554 features")
    assert main(["status", model_id, "--json", "--redis-url", redis_url]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {name: answer[name] for name in ("schema_version", "tenant", "model_id", "model_revision", "state")} == {
        "schema_version": 1, "tenant": "default", "model_id": model_id, "model_revision": "v1", "state": "critical",
    }  # fmt: skip
    assert [(lane["lane"]["hook_name"], lane["state"]) for lane in answer["lanes"]] == [
        ("h2", "critical"),
        ("h1", "ok"),
    ]
    assert 0 <= answer["age_s"] < 15
    assert main(["status", model_id, "--fail-on", "critical", "--redis-url", redis_url]) == 3
    assert main(["status", model_id, "--fail-on", "critical", "--hook", "h1", "--redis-url", redis_url]) == 0


def test_the_table_says_what_a_person_needs(publish, redis_url, capsys):
    card = IncidentCard(
        incident_id="i", severity="critical", opened_request=812, opened_at_ms=0, cause_hint="features and t0",
        features_drifted=554,
    )  # fmt: skip
    model_id = publish(
        "critical", reason="two groups crossed", requests=900, incident=card,
        coverage=Coverage(requests_counted=90, requests_seen=100, reasons={"late": 10}),
        health=Health(explained_variance=0.5, explained_variance_baseline=0.82),
    )  # fmt: skip
    main(["status", model_id, "--redis-url", redis_url])
    shown = capsys.readouterr().out
    for text in (
        f"default/{model_id} revision v1 is critical", "two groups crossed", "900", "90.0% of 100 (10 late)",
        "explained variance 0.5 (was 0.82)", "critical since request 812, 554 features, features and t0",
    ):  # fmt: skip
        assert text in shown


def test_features_with_their_labels_and_why_others_have_none(publish, redis_url, capsys):
    drift = FeatureDrift(
        feature=12, direction="up", log_e=21.0, log_threshold=20.6, rate_baseline=0.01, rate_now=0.5,
        detected_request=9, label="loans \x1b[2J[red]over[/red] 300,000\u202e",
    )  # fmt: skip
    card = IncidentCard(
        incident_id="i", severity="critical", opened_request=8, opened_at_ms=0, cause_hint="data_shift",
        features_drifted=1, features=[drift],
    )  # fmt: skip
    model_id = publish("critical", incident=card)
    publish("ok", hook="other", labels="a.json is for SAE ffffffffffff, this lane has abababababab")
    main(["status", model_id, "--redis-url", redis_url])
    shown = capsys.readouterr()
    assert "layer.15: #12 'loans \ufffd[2J[red]over[/red] 300,000\ufffd' up 1.00%→50.00%" in shown.out
    assert "other: feature labels: a.json is for SAE ffffffffffff" in " ".join(shown.err.split())


def test_an_unknown_model_exits_4(redis_url, capsys):
    assert main(["status", "never-heard-of", "--json", "--redis-url", redis_url]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert (answer["state"], answer["lanes"], answer["age_s"]) == ("unknown", [], None)
    assert "nothing is known of model never-heard-of" in answer["reason"]


def test_no_redis_exits_5_and_names_the_address_alone(capsys):
    assert main(["status", "m", "--json", "--redis-url", "redis://:geheim@127.0.0.1:1/0"]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "redis://127.0.0.1:1/0" in captured.err
    assert "geheim" not in captured.err


def test_an_installation_without_redis_is_a_usage_error(capsys):
    assert main(["status", "m", "--set", "redis.url="]) == 2
    assert "redis.url is empty" in capsys.readouterr().err


def test_a_hostile_name_that_is_not_known_is_said_inert(redis_url, capsys):
    assert main(["status", "\x1b[2Jowned\x07\nok", "--redis-url", redis_url]) == 4
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert said.rstrip("\n").isprintable()
