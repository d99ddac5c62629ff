"""The files of the tour: they load, and a backtest on them tells null from shift."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def _cli(*words: str | Path) -> dict[str, object]:
    line = [sys.executable, "-m", "stream_interp.cli", *map(str, words), "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def test_the_files_of_the_tour_tell_null_from_shift(tmp_path: Path) -> None:
    files = _cli("demo", "--files", tmp_path / "credit")
    report = _cli(
        "backtest", "--sae", files["sae"], "--baseline", files["baseline"],
        "--stream", files["null"], "--stream", files["shift"],
    )  # fmt: skip
    null, shift = report["streams"]
    assert null["first_incident_request"] is None
    assert shift["first_incident_request"] <= 200
    assert shift["status"] == "critical"
