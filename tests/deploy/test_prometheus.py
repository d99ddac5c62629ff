"""The rules as promtool reads them: each is seen firing and quiet, and says who is called and what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_interp.cli.app import COMMANDS
from stream_interp.observe.catalogue import METRICS
from stream_interp.observe.metrics import PREFIX
from tests.deploy.prometheus_rules import EXPIRED, FIRING, QUIET, Series
from tests.deploy.promql import metric_names
from tests.workers import ROOT

RULES = ROOT / "deploy/prometheus/rules.yml"


def rules() -> dict[str, Any]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_rules_and_configuration_are_valid(promtool: str) -> None:
    for check in (["rules", RULES], ["config", ROOT / "deploy/prometheus/prometheus.yml"]):
        done = subprocess.run([promtool, "check", *map(str, check)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_nothing_fires_in_a_fleet_that_is_well(promtool: str, tmp_path: Path) -> None:
    expected = {f"{minute}m": {"StreamInterpWatchdog": 1} for minute in (15, 20, 22, 30, 39)}
    check(promtool, tmp_path, QUIET, expected)


@pytest.mark.parametrize("alert", rules())
def test_every_rule_fires(promtool: str, tmp_path: Path, alert: str) -> None:
    series = QUIET | FIRING[alert]
    assert FIRING[alert].keys() <= QUIET.keys()
    check(promtool, tmp_path, series, {"39m": {alert: 1}}, of=alert)


def test_what_had_expired_before_the_first_scrape_is_told_for_15_minutes(promtool: str, tmp_path: Path) -> None:
    alert, series = "StreamInterpRecordsExpired", QUIET | {EXPIRED: "_x20 9x20"}
    check(promtool, tmp_path, series, {"19m": {}, "21m": {alert: 1}, "34m": {alert: 1}, "36m": {}}, of=alert)


@pytest.mark.parametrize("alert", rules())
def test_every_rule_says_who_is_called_and_what_to_do(alert: str) -> None:
    rule = rules()[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "none"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]
    for name in metric_names(rule["expr"]):
        assert name == "up" or is_ours(name), name


def test_the_commands_of_the_runbook_exist() -> None:
    page = (ROOT / "deploy/runbooks/prometheus.md").read_text()
    commands = re.findall(r"`stream-interp ([a-z -]+[a-z])", page)
    names = {row.name for row in COMMANDS}
    assert len(commands) >= 8
    assert [command for command in commands if command not in names] == []


def is_ours(name: str) -> bool:
    """A series that the catalogue of metrics has."""
    base = name.removeprefix(PREFIX)
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return any(base == of + suffix for of, metric in METRICS.items() for suffix in suffixes[metric.kind])


def check(
    promtool: str, folder: Path, series: Series, expected: dict[str, dict[str, int]], of: str = "StreamInterp.*"
) -> None:
    """`promtool test rules`: at each time, how many alerts of each name fire."""
    copied = folder / "rules.yml"
    shutil.copy(RULES, copied)
    tests = [
        {
            "expr": f'count by (alertname) (ALERTS{{alertstate="firing", alertname=~"{of}"}})',
            "eval_time": at,
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": n} for name, n in alerts.items()],
        }
        for at, alerts in expected.items()
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    content = {
        "rule_files": [copied.name],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "promql_expr_test": tests}],
    }
    (folder / "test.yml").write_text(json.dumps(content))
    done = subprocess.run([promtool, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
