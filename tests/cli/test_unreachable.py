"""No broker at the address: every command says so and exits with 5. Two run at once, as each waits five seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

UNREACHABLE = "127.0.0.1:1"
COMMANDS = {
    "doctor": ("doctor", "--json", "--redis-url", ""),
    "topics plan": ("topics", "plan"),
    "topics apply": ("topics", "apply", "--json"),
    "ui": ("ui", "--listen", "127.0.0.1:0"),
    "top": ("top", "--json"),
    "alerts tail": ("alerts", "tail", "--json"),
    "alerts list": ("alerts", "list", "--json"),
    "alerts ack": ("alerts", "ack", "3f2a91", "--json"),
    "baseline list": ("baseline", "list", "--json"),
    "baseline relearn": ("baseline", "relearn", "8c41d0", "--reason", "wanted", "--json"),
    "produce": ("produce", "--from", "acts.safetensors", "--model-id", "m", "--hook", "h", "--json"),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str, float]]:
    """Exit code, stdout, stderr and seconds of every command."""
    folder: Path = tmp_path_factory.mktemp("unreachable")
    save_file({"acts": np.ones((4, 2), np.float32), "doc_id": np.arange(4)}, folder / "acts.safetensors")

    def run(words: tuple[str, ...]) -> tuple[int, str, str, float]:
        start_s = time.monotonic()
        command = [sys.executable, "-m", "stream_interp.cli", *words, "--bootstrap", UNREACHABLE]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ, timeout=60)
        return done.returncode, done.stdout, done.stderr, time.monotonic() - start_s

    with ThreadPoolExecutor(2) as pool:  # with three, beside other test workers and without byte code, one took 25 s
        return dict(zip(COMMANDS, pool.map(run, COMMANDS.values()), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_exit_5_naming_the_address_in_time(ended, command: str) -> None:
    code, out, err, seconds = ended[command]
    assert code == 5, err
    assert UNREACHABLE in out + err
    assert "Traceback" not in err
    assert "%" not in err  # librdkafka's own log lines start with %3|
    assert seconds < 30  # five of waiting, and an interpreter that starts on a busy machine
    if command != "doctor":
        assert out == ""


def test_doctor_reports_what_failed_and_what_it_skipped(ended) -> None:
    report = json.loads(ended["doctor"][1])
    kafka, redis, sae = report["checks"][:3]
    assert (kafka["name"], kafka["state"]) == ("kafka", "failed")
    assert UNREACHABLE in kafka["detail"]
    assert (redis["state"], sae["state"]) == ("skipped", "skipped")
    assert report["ok"] is False
