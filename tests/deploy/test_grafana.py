"""What Grafana is provisioned with; that the expressions return series is shown by test_scraped.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.promql import metric_names
from tests.deploy.test_prometheus import is_ours
from tests.workers import ROOT

FOLDER = ROOT / "deploy/grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_that_exist_and_fits_the_grid(path: Path) -> None:
    panels = load(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        names = [name for target in panel["targets"] for name in metric_names(target["expr"])]
        assert names, panel["title"]
        assert all(is_ours(name) or name.startswith("process_") for name in names), names


def test_fleet_lane_and_pipeline_know_each_other() -> None:
    uids = {load(path)["uid"] for path in DASHBOARDS}
    assert uids == {"stream-interp-fleet", "stream-interp-lane", "stream-interp-pipeline"}
    assert "/d/stream-interp-lane?var-lane=" in (FOLDER / "dashboards/fleet.json").read_text()
    assert all(load(path)["links"][0]["tags"] == load(path)["tags"] for path in DASHBOARDS)


def test_provisioning_has_one_source_and_one_folder() -> None:
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "$PROMETHEUS_URL")
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/stream_interp.yml").read_text())["providers"]
    assert provider["type"] == "file"
