"""`notify` and `notify test` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_interp.cli import main
from tests.notify.bench import receiver

UNREACHABLE = ["--bootstrap", "127.0.0.1:1"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sinks(*entries: dict[str, object]) -> list[str]:
    return ["--set", f"notify.sinks={json.dumps(entries)}"]


@pytest.mark.parametrize("words", [["notify", *UNREACHABLE], ["notify", "run", *UNREACHABLE]])
def test_notify_alone_starts_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 5
    assert "nobody will be told" in capsys.readouterr().err


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notify", "--help"]) == 0
    assert "test" in capsys.readouterr().out


def test_a_test_alert_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notify", "test", "screen", *sinks({"name": "screen", "type": "console"})]) == 0
    captured = capsys.readouterr()
    assert "TEST" in captured.out
    assert "delivered" in captured.err


def test_a_test_of_a_dead_man_calls_it() -> None:
    with receiver() as hook:
        entry = {"name": "watcher", "type": "deadman", "url": hook.url, "allow": ["127.0.0.1"]}
        assert main(["notify", "test", "watcher", *sinks(entry)]) == 0
        assert hook.ids == ["ping"]


def test_a_sink_that_does_not_answer_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    with receiver() as hook:
        url = hook.url
    entry = {"name": "hook", "type": "alertmanager", "url": url, "allow": ["127.0.0.1"], "timeout_s": 2.0}
    assert main(["notify", "test", "hook", *sinks(entry)]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["notify", "test", "nobody"], "no sink is named 'nobody'"),
        (["notify", *sinks({"name": "a", "type": "pigeon"})], "pigeon"),
        (["notify", *sinks({"name": "a", "type": "alertmanager"})], "url"),
        (["notify", *sinks({"name": "a", "type": "console"}, {"name": "a", "type": "console"})], "two sinks"),
        (["notify", "--set", 'notify.routes=[{"sinks":["a"]}]'], "no sink is named 'a'"),
        (["notify", *sinks({"name": "a", "type": "console"}), "--set", "notify.routes=[{}]"], "no sinks"),
        (["notify", "--set", "kafka.librdkafka.sasl.oauthbearer.config=x"], "sasl.oauthbearer.config"),
    ],
)
def test_what_cannot_work_is_exit_2_before_kafka_is_asked(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
