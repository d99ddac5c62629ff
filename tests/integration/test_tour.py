"""The README's tour, word by word in an empty folder, on the Kafka and Valkey that a test has instead of `dev`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from stream_interp.embedded.ports import free_ports
from tests.workers import ROOT

TOUR = (ROOT / "README.md").read_text().partition("## A tour in ten minutes")[2].partition("\n### ")[0]
STAYS = {"run": "interp.activations/2: reads from", "notify": "notify: partitions", "ui": "is the page"}
TELL_FAILURES = """trap 'echo "failed with $?: $BASH_COMMAND" >&2' ERR\n"""


def blocks() -> list[str]:
    """Its blocks of code but `dev`."""
    found = re.findall(r"^```\n(.*?)^```", TOUR, re.DOTALL | re.MULTILINE)
    return [block for block in found if block.strip() != "stream-interp dev"]


@pytest.fixture
def environ(kafka_bootstrap: str, redis_url: str, topic_prefix: str) -> dict[str, str]:
    """What `dev` says to export, and names of our own on servers that are shared."""
    own = {
        "KAFKA__BOOTSTRAP": kafka_bootstrap, "REDIS__URL": redis_url.rpartition("/")[0] + "/2",
        "KAFKA__TOPIC_PREFIX": topic_prefix, "KAFKA__GROUP_PREFIX": topic_prefix + "g",
    }  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {f"STREAM_INTERP_{k}": v for k, v in own.items()} | {"PATH": path, "PYTHONPATH": str(ROOT)}


@contextmanager
def terminal(command: str, folder: Path, environ: dict[str, str]) -> Iterator[Path]:
    """A command that stays, until it says that it is ready; its output."""
    name = command.split()[1]
    log = folder / f"{name}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdout=out, stderr=out, cwd=folder, env=environ, start_new_session=True
        )
    try:
        deadline_s = time.monotonic() + 60
        while STAYS[name] not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.2)
        yield log
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(300)
def test_every_command_of_the_tour_works_as_printed(environ: dict[str, str], tmp_path: Path) -> None:
    said = list[str]()
    with ExitStack() as terminals:
        for block in blocks():
            *lines, last = block.replace("\\\n", " ").strip().splitlines()
            name = last.split()[1]
            script = "\n".join(lines if name in STAYS else [*lines, last])
            if script:
                done = subprocess.run(
                    ["bash", "-c", TELL_FAILURES + script], capture_output=True, text=True, cwd=tmp_path, env=environ,
                    timeout=120,
                )  # fmt: skip
                said.append(done.stdout + done.stderr)
            if name in STAYS:
                command = f"{last} --listen 127.0.0.1:{free_ports(1)[0]}" if name == "ui" else last
                terminals.enter_context(terminal(command, tmp_path, environ))
        told = (tmp_path / "notify.log").read_text()
    failed = re.findall(r"^failed with .*", "\n".join(said), re.MULTILINE)
    assert failed == ["failed with 3: stream-interp status credit-risk --fail-on critical"], said
    *_, traffic, incident, relearnt, offline = said
    states = re.findall(r"^default/credit-risk revision unversioned is (\w+)$", traffic + relearnt, re.MULTILINE)
    assert states == ["ok", "critical", "warning", "ok"]
    assert "exit code 3" in traffic
    assert "acknowledged by" in incident
    assert "unchanged: incident" in incident
    assert re.search(r"same [1-9]\d* transitions with the same ids", incident)
    assert re.search(r"^shift\.safetensors +500 +critical", offline, re.MULTILINE)
    # Where the first window of the shift held few requests of it, the incident opens as a warning.
    assert re.search("critical: drift (escalated )?on credit-risk/hidden", told)
    assert "runbook: deploy/runbooks/data_shift.md" in told
    assert "drift resolved on credit-risk/hidden" in told
