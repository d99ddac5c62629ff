"""The long-running commands around it all, without a broker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stream_interp.embedded.ports import free_ports
from tests.workers import ROOT


@pytest.mark.parametrize("command", ["detect"])
def test_the_last_word_of_a_command_that_cannot_go_on_is_a_log_line_too(command: str, tmp_path: Path) -> None:
    [port, http] = free_ports(2)
    done = subprocess.run(
        [sys.executable, "-m", "stream_interp.cli", command, "--bootstrap", f"127.0.0.1:{port}",
         "--http", f"127.0.0.1:{http}", "--set", "log.format=json", "--set", "redis.url="],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["process"] for line in lines} == {command}
    assert f"http://127.0.0.1:{http}/metrics" in lines[0]["message"]
    assert lines[-1]["level"] == "error"
    assert lines[-1]["message"].startswith(f"Kafka at 127.0.0.1:{port}: ")
