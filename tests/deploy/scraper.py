"""A real Prometheus that scrapes real processes, on loopback, and what it answers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_interp.embedded.ports import free_ports


def get(url: str) -> tuple[int, bytes]:
    """Status and body; status 0 where nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[Any]:
        """The series of an instant query."""
        status, body = get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        answer = json.loads(body)
        assert status == 200, (expression, answer)
        result = answer["data"]["result"]
        return [result] if answer["data"]["resultType"] == "scalar" else list(result)

    def rules(self) -> list[Any]:
        groups = json.loads(get(f"{self.url}/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self) -> list[Any]:
        return list(json.loads(get(f"{self.url}/api/v1/targets")[1])["data"]["activeTargets"])


@contextmanager
def scraping(program: str, folder: Path, targets: list[str], rules: Path) -> Iterator[Prometheus]:
    """Every second; ended with the block."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "stream-interp", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    [port] = free_ports(1)
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        url, deadline_s = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while get(f"{url}/-/ready")[0] != 200:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline_s, (folder / "prometheus.log").read_text()
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)
