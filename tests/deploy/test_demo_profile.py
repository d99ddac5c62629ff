"""The command lines of the compose profile `demo`, in the order of its waits, end in the planted incident."""

from __future__ import annotations

import time
import urllib.request
from contextlib import ExitStack
from graphlib import TopologicalSorter
from pathlib import Path

from stream_interp.embedded.ports import HOST, free_ports
from tests.deploy.deployed import address, compose
from tests.integration.world import CommandLine

SERVICES = {name: s for name, s in compose()["services"].items() if "demo" in s["profiles"] and name != "ui"}
ORDER = list(TopologicalSorter({name: s.get("depends_on", {}) for name, s in SERVICES.items()}).static_order())


def test_it_ends_critical(kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    settings = {"NOTIFY__SINKS": '[{"name": "screen", "type": "console"}]'}
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, settings)
    with ExitStack() as processes:
        for name in ORDER:
            service = SERVICES[name]
            if service["image"] != "stream-interp":
                continue
            words = [word.replace("/var/lib/stream-interp", str(tmp_path)) for word in service["command"]]
            if "restart" not in service:
                command.ok(*words)
                continue
            here = f"{HOST}:{free_ports(1)[0]}"
            processes.enter_context(command.process(*(here if word == address(words) else word for word in words)))
            _wait_until_ready(here)
        deadline_s = time.monotonic() + 60
        while (code := command.run("status", "credit-risk", "--fail-on", "critical").returncode) != 3:
            assert time.monotonic() < deadline_s, code
            time.sleep(0.5)


def _wait_until_ready(here: str) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://{here}/readyz", timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s, f"{here} is not ready"
            time.sleep(0.3)
