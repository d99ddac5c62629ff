"""Every order from the command line to DETECT and back, on a real Kafka with real ENCODE and DETECT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae

SITE = ("--model-id", MODEL, "--hook", HOOK)
SETTINGS = {"BASELINE__REQUESTS": "600", "STATUS__INTERVAL_S": "0.5", "DRIFT__CLOCK": "requests"}
NULL = 300


@pytest.fixture
def command(kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    line = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, SETTINGS)
    line.ok("topics", "apply", "--partitions", "interp.activations=1")
    return line


def produce(command: CommandLine, name: str, requests: int, seed: int, shift: float = 0.0) -> None:
    path = write_activations(command.folder / f"{name}.safetensors", requests, seed, shift)
    command.ok("produce", "--from", path, *SITE, "--rate", "150")


def counted(command: CommandLine) -> int:
    return command.status()["lanes"][0]["coverage"]["requests_counted"]


def only_incident(command: CommandLine, *words: str) -> dict:
    [incident] = command.json("alerts", "list", *words)["incidents"]
    return incident


@pytest.mark.timeout(300)
def test_an_operator_acks_silences_resolves_relearns_and_rolls_back(command: CommandLine) -> None:
    write_sae(command.folder / "sae")
    write_activations(command.folder / "baseline.safetensors", 800, seed=1)
    command.ok("baseline", "build", "--sae", "sae", "--from", "baseline.safetensors", *SITE, "--reason", "first")
    with command.process("run", "--sae", "sae"):
        produce(command, "null", NULL, seed=2)
        command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_counted"] == NULL)
        produce(command, "shift", 150, seed=3, shift=0.7)
        lane = command.wait_for_state("critical")["lanes"][0]
        command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_counted"] == NULL + 150)
        incident_id = only_incident(command)["incident_id"]
        check_ack_and_silence(command, incident_id)
        check_resolve(command, incident_id)
        lane_id = command.json("baseline", "list")["baselines"][0]["lane_id"]
        first = lane["baseline"]["version"]
        check_relearn(command, lane_id, first)
        check_rollback(command, lane_id, first)


def check_ack_and_silence(command: CommandLine, incident_id: str) -> None:
    said = command.json("alerts", "ack", incident_id[:6], "--for", "2h", "--reason", "looking", "--author", "ada")
    assert said["taken_in"]
    assert (said["order"]["kind"], said["order"]["incident_id"], said["author"]) == ("ack", incident_id, "ada")
    incident = only_incident(command)
    assert (incident["ack"]["author"], incident["ack"]["reason"], incident["silence"]) == ("ada", "looking", None)
    assert incident["ack"]["until_ms"] == said["order"]["until_ms"]
    silenced = command.json("alerts", "silence", incident_id, "--for", "1h", "--reason", "migration", "--author", "bo")
    assert silenced["taken_in"]
    assert only_incident(command)["silence"]["author"] == "bo"
    shown = command.json("alerts", "show", incident_id[:6])
    kinds = [event.get("kind") or event["transition"] for event in shown["story"]]
    assert (kinds[0], kinds[-2:]) == ("opened", ["ack", "silence"])
    assert shown["runbook"].endswith(f"/{shown['incident']['cause_hint']}.md")
    text = command.ok("alerts", "show", incident_id[:6])
    assert "acknowledged by ada (as claimed) until" in text
    assert "silenced by bo (as claimed) until" in text
    lane_id = silenced["order"]["lane"]
    assert lane_id["model_id"] == MODEL
    assert command.json("alerts", "unsilence", incident_id)["taken_in"]
    assert only_incident(command)["silence"] is None
    told = [json.loads(row) for row in command.ok(
        "alerts", "tail", "--json", "--from-beginning", "--timeout", "3"
    ).splitlines()]  # fmt: skip
    assert [event["kind"] for event in told if "kind" in event] == ["ack", "silence", "unsilence"]


def check_resolve(command: CommandLine, incident_id: str) -> None:
    assert command.json("alerts", "resolve", incident_id, "--reason", "bad file", "--author", "ada")["taken_in"]
    assert command.json("alerts", "list")["incidents"] == []
    ended = only_incident(command, "--all")
    assert ended["transition"] == "resolved"
    assert "bad file" in ended["note"]
    again = command.run("alerts", "resolve", incident_id, "--reason", "once more")
    assert again.returncode == 2
    assert "has ended" in again.stderr


def check_relearn(command: CommandLine, lane_id: str, first: int) -> None:
    assert command.json("baseline", "relearn", lane_id[:5], "--reason", "the shift is wanted")["taken_in"]
    assert command.wait_for_state("learning")["lanes"][0]["baseline"] is None
    assert not any(card["in_effect"] for card in command.json("baseline", "list")["baselines"])
    for seed in range(10, 14):
        produce(command, f"learn{seed}", 400, seed=seed, shift=0.7)
        if command.status()["lanes"][0]["baseline"] is not None:
            break
    crept = command.wait_for_state("warning", timeout_s=30)["lanes"][0]
    learnt = crept["baseline"]["version"]
    assert (crept["reason"], crept["creep"]["anchor"]) == ("baseline_creep", first)
    assert command.json("baseline", "approve", lane_id, "--reason", "the shift is wanted", "--author", "bo")["taken_in"]
    approved = command.wait_for_state("ok")["lanes"][0]
    assert (approved["baseline"]["anchor"], approved["creep"]) == (learnt, None)
    [story] = [i for i in command.json("alerts", "list", "--all")["incidents"] if i["cause_hint"] == "baseline_creep"]
    assert (story["transition"], story["note"]) == ("note_ended", "approved by bo (as claimed): the shift is wanted")
    cards = command.json("baseline", "list", MODEL)["baselines"]
    assert [(card["version"], card["in_effect"]) for card in cards] == [(first, False), (learnt, True)]
    report = command.json("baseline", "diff", lane_id)
    assert (report["before"]["version"], report["after"]["version"]) == (first, learnt)
    assert report["features_moved"] > 0
    assert "features moved beyond both intervals" in command.ok("baseline", "diff", lane_id)


def check_rollback(command: CommandLine, lane_id: str, first: int) -> None:
    back = command.json("baseline", "rollback", lane_id, "--reason", "not wanted after all", "--author", "cy")
    assert back["taken_in"]
    assert back["origin"] == first
    [card] = [card for card in command.json("baseline", "list")["baselines"] if card["in_effect"]]
    assert (card["version"], card["origin"], card["author"]) == (back["version"], first, "cy")
    assert card["projector_version"] == back["version"]
    before = counted(command)
    produce(command, "null-again", NULL, seed=20)
    after = command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_counted"] >= before + NULL - 32)
    assert (after["state"], after["lanes"][0]["reason"]) == ("warning", "baseline_creep")  # the new one is the anchor
    produce(command, "shift-again", 150, seed=21, shift=0.7)
    command.wait_for_state("critical", "warning")
