"""The main job through the command line, on real Kafka and Valkey: files in, alerts and statuses out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae

SITE = ("--model-id", MODEL, "--hook", HOOK)
NULL, SHIFTED = 300, 120
ONE_REQUEST_A_WINDOW = {
    "WINDOW__REQUESTS": "1", "WINDOW__MIN_AGE_S": "0", "WINDOW__MAX_AGE_S": "0",
    "DRIFT__CLOCK": "requests", "STATUS__INTERVAL_S": "0.5",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_sae(folder / "sae")
    write_activations(folder / "baseline.safetensors", 800, seed=1)
    write_activations(folder / "null.safetensors", NULL, seed=2)
    write_activations(folder / "shift.safetensors", SHIFTED, seed=3, shift=0.7)
    return folder


@pytest.fixture
def command(kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path, request) -> CommandLine:
    line = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, getattr(request, "param", {}))
    line.ok("topics", "apply", "--partitions", "interp.activations=1")
    return line


@pytest.mark.parametrize("command", [ONE_REQUEST_A_WINDOW], indirect=True)
def test_the_stream_decides_as_the_backtest_does(command: CommandLine, files: Path) -> None:
    offline = command.json(
        "backtest", "--sae", files / "sae", "--baseline", files / "baseline.safetensors",
        "--stream", files / "null.safetensors", "--stream", files / "shift.safetensors", "--continue",
    )  # fmt: skip
    assert offline["streams"][0]["incidents"] == []
    [expected] = offline["streams"][1]["incidents"]
    command.ok("baseline", "build", "--sae", files / "sae", "--from", files / "baseline.safetensors", *SITE)
    with command.process("run", "--sae", files / "sae"):
        command.ok("produce", "--from", files / "null.safetensors", *SITE)
        status = command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_counted"] == NULL)
        assert status["state"] == "ok"
        command.ok("produce", "--from", files / "shift.safetensors", *SITE)
        command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_counted"] == NULL + SHIFTED)
        status = command.wait_for_state("critical")
        alerts = command.alerts()
    story = [(a["transition"], a["request"] - NULL, a["severity"]) for a in alerts]
    assert story == [(a["transition"], a["request"], a["severity"]) for a in expected["alerts"]]
    assert alerts[0]["opened_request"] - NULL == expected["opened_request"]
    assert [f["feature"] for f in alerts[-1]["features"]] == expected["features"]
    assert len({a["event_id"] for a in alerts}) == len(alerts)
    assert status["lanes"][0]["incident"]["incident_id"] == alerts[0]["incident_id"]


@pytest.mark.parametrize("command", [{"BASELINE__REQUESTS": "600", "STATUS__INTERVAL_S": "0.5"}], indirect=True)
def test_a_lane_learns_live_and_accounts_for_what_it_did_not_use(command: CommandLine, files: Path) -> None:
    with command.process("run", "--sae", files / "sae"):
        for seed in range(4):
            path = write_activations(command.folder / f"learn{seed}.safetensors", 400, seed=10 + seed)
            command.ok("produce", "--from", path, *SITE, "--rate", "150")
            if command.status()["state"] == "ok":
                break
        learnt = command.wait_for_state("ok")["lanes"][0]
        assert learnt["baseline"]["requests"] >= 480
        command.ok("produce", "--from", files / "null.safetensors", *SITE)
        seen = learnt["coverage"]["requests_seen"]
        quiet = command.wait_for(lambda s: s["lanes"][0]["coverage"]["requests_seen"] >= seen + NULL)
        assert quiet["state"] == "ok"
        command.ok("produce", "--from", files / "shift.safetensors", *SITE)
        lane = command.wait_for_state("critical")["lanes"][0]
        alerts = command.alerts()
    coverage = lane["coverage"]
    assert coverage["requests_counted"] + sum(coverage["reasons"].values()) == coverage["requests_seen"]
    assert {a["transition"] for a in alerts} <= {"opened", "updated", "escalated"}
    assert sum(a["transition"] == "opened" for a in alerts) == 1
