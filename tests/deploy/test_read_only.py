"""Every process works where it may write nothing but its temporary folder, as in the image and the units."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from stream_interp.embedded.ports import HOST, free_ports
from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae

# A mount namespace of its own: everything is read-only, a fresh file system lies at the temporary folder.
CONFINE = """
set -e
mount -o remount,ro,bind /
mount -t tmpfs tmpfs "$TMPDIR"
if touch "$PWD/x" 2>/dev/null; then echo "still writable" >&2; exit 99; fi
exec "$@"
"""


@dataclass(frozen=True)
class Confined(CommandLine):
    def _words(self, words: tuple[str | Path, ...]) -> list[str]:
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", CONFINE, "sh", *super()._words(words)]


@pytest.fixture
def command(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Confined:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("HOME", str(temporary))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    settings = {
        "NOTIFY__SINKS": '[{"name": "screen", "type": "console"}]', "BASELINE__REQUESTS": "100",
        "WINDOW__MAX_AGE_S": "0.5",
    }  # fmt: skip
    found = Confined(kafka_bootstrap, redis_url, topic_prefix, tmp_path, settings)
    done = subprocess.run(found._words(("version",)), capture_output=True, text=True, timeout=60, cwd=tmp_path)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"this machine allows no mount namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return found


def _ready(port: int) -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5).status == 200)
    except OSError:
        return False


def test_all_processes_get_ready_and_count_on_a_read_only_root(command: Confined) -> None:
    sae, file = write_sae(command.folder / "sae"), write_activations(command.folder / "a.safetensors", 300, 1)
    command.ok("topics", "apply")
    ports = free_ports(4)
    lines: list[list[str | Path]] = [["detect"], ["encode", "--sae", sae], ["notify"], ["ui"]]
    with ExitStack() as processes:
        for port, words in zip(ports, lines, strict=True):
            processes.enter_context(
                command.process(*words, "--listen" if words == ["ui"] else "--http", f"{HOST}:{port}")
            )
        deadline_s = time.monotonic() + 90
        while not all(_ready(port) for port in ports):
            logs = "\n".join(path.read_text()[-1500:] for path in command.folder.glob("*.log"))
            assert time.monotonic() < deadline_s, logs
            time.sleep(0.3)
        command.ok("produce", "--from", file, "--model-id", MODEL, "--hook", HOOK)
        command.wait_for_state("learning", "ok")
