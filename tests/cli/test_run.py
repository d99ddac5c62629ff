"""`run`: two loops in one process, which end together."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream_interp.cli import main
from stream_interp.cli.run import run_together
from stream_interp.errors import IntegrityError


def test_the_error_of_one_loop_stops_the_other_and_is_raised() -> None:
    ended = threading.Event()

    def fails(_: threading.Event) -> None:
        raise IntegrityError("a checkpoint is too old")

    def waits(stop: threading.Event) -> None:
        assert stop.wait(10)
        ended.set()

    with pytest.raises(IntegrityError, match="too old"):
        run_together([(waits, None), (fails, None)], threading.Event())
    assert ended.is_set()


def test_both_end_when_asked() -> None:
    stop, ended = threading.Event(), list[int]()

    def loop(stop: threading.Event) -> None:
        assert stop.wait(10)
        ended.append(1)

    threading.Timer(0.05, stop.set).start()
    run_together([(loop, None), (loop, None)], stop)
    assert ended == [1, 1]


def test_the_next_starts_once_the_one_before_is_ready() -> None:
    stop, ready, order = threading.Event(), threading.Event(), list[str]()

    def first(stop: threading.Event) -> None:
        stop.wait(0.3)
        order.append("first")
        ready.set()
        stop.wait(10)

    def second(_: threading.Event) -> None:
        order.append("second")

    run_together([(first, ready), (second, None)], stop)
    assert order == ["first", "second"]


def test_one_that_never_gets_ready_does_not_keep_the_rest_from_ending() -> None:
    def fails(_: threading.Event) -> None:
        raise IntegrityError("refused")

    with pytest.raises(IntegrityError, match="refused"):
        run_together([(fails, threading.Event()), (lambda _: None, None)], threading.Event())


def test_an_sae_that_cannot_be_loaded_ends_run(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    kafka = ["--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}"]
    assert main(["topics", "apply", *kafka]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "stream_interp.cli", "run", *kafka, "--redis-url", "", "--sae", tmp_path / "nothing"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "missing_path" in done.stderr


def test_a_wrong_sae_fences_no_detect_off(
    kafka_bootstrap: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[object] = []
    monkeypatch.setattr("stream_interp.detect.process.Detect", lambda *given: made.append(given))
    at = ("--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}")
    assert main(["topics", "apply", *at]) == 0
    assert main(["run", "--sae", "nowhere", *at]) != 0
    assert "expected a folder with one SAE" in " ".join(capsys.readouterr().err.split())
    assert made == []
