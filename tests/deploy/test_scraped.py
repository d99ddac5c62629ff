"""Real processes with a real Prometheus: each selector of rules and dashboards returns series, and no id leaks."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from stream_interp.embedded.ports import free_ports
from stream_interp.kafka.client import producer, producer_config
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.settings import KafkaSettings
from tests.deploy.conftest import found
from tests.deploy.promql import selectors
from tests.deploy.scraper import Prometheus, get, scraping
from tests.deploy.test_prometheus import RULES, rules
from tests.encode.bad_snapshots import KINDS
from tests.integration.world import D_IN, HOOK, MODEL, TOKENS, CommandLine, write_activations, write_sae
from tests.workers import ROOT

SITE = ("--model-id", MODEL, "--hook", HOOK)
PLANTED = "patient-4711"  # in every request id; it may be seen nowhere
# printable, because control characters are refused on their way in
HOSTILE = 'evil"} 1 stream_interp_lanes{x="y"} 99 \\n<script>alert(1)</script>' + "x" * 400
FILES, TOO_SHORT = 4, 10  # of null traffic; short requests in each
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
SETTINGS = {
    "STATUS__INTERVAL_S": "0.5", "CHECKPOINT__INTERVAL_S": "1", "WINDOW__MAX_AGE_S": "0.5", "LOG__FORMAT": "json",
    "NOTIFY__SINKS": '[{"name": "console", "type": "console"}]',
}  # fmt: skip


@dataclass(frozen=True)
class Scraped:
    """What was seen while everything ran."""

    prometheus: Prometheus
    ready: dict[str, Any]
    lane_id: str
    metrics: str
    logs: list[Path]


@pytest.fixture(scope="module")
def scraped(kafka_bootstrap: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A lane from null to critical, dead letters, a hostile lane; scraped each second all along."""
    folder, program = tmp_path_factory.mktemp("scraped"), found("prometheus")
    write_sae(folder / "sae")
    command = CommandLine(kafka_bootstrap, redis_url, f"t{os.getpid()}.", folder, SETTINGS)
    command.ok("topics", "apply")
    baseline = write_activations(folder / "baseline.safetensors", 800, seed=1)
    command.ok("baseline", "build", "--sae", folder / "sae", "--from", baseline, *SITE)
    at = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with (
        command.process("run", "--sae", folder / "sae", "--http", at[0]),
        command.process("notify", "--http", at[1]),
        scraping(program, folder, at, RULES) as prometheus,
    ):
        ready = {address: until_ready(address) for address in at}
        for k in range(FILES):
            produce_null(command, k)
        produce_hostile(command)
        shift = write_activations(folder / "shift.safetensors", 120, seed=3, shift=0.7)
        command.ok("produce", "--from", shift, *SITE, "--request-prefix", PLANTED)
        lane = next(x for x in command.wait_for_state("critical")["lanes"] if x["lane"]["model_id"] == MODEL)
        lane_id = msgspec.convert(lane["lane"], Lane).lane_id
        wait_for(prometheus, 'increase(stream_interp_deliveries_total{outcome="delivered"}[1m]) > 0')
        wait_for(prometheus, 'ALERTS{alertname="StreamInterpIncidentCritical", alertstate="firing"}')
        metrics = "".join(get(f"http://{address}/metrics")[1].decode() for address in at)
        yield Scraped(prometheus, ready, lane_id, metrics, sorted(folder.glob("*-*.log")))


def produce_null(command: CommandLine, k: int) -> None:
    """Requests as the baseline has them, and some that are too short for its unit."""
    lengths = [TOKENS] * 60 + [2] * TOO_SHORT
    acts = np.random.default_rng(10 + k).standard_normal((sum(lengths), D_IN)).astype(np.float32)
    path = command.folder / f"null{k}.safetensors"
    save_file({"acts": acts, "doc_id": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)}, path)
    command.ok("produce", "--from", path, *SITE, "--request-prefix", f"{PLANTED}-{k}-")


def produce_hostile(command: CommandLine) -> None:
    """Every kind of record that no worker may count, and a lane whose name would like to be a metric and a log line."""
    kafka = KafkaSettings(bootstrap=command.bootstrap, topic_prefix=command.topic_prefix)
    sender = producer(producer_config(kafka))
    acts = np.ones((TOKENS, D_IN), np.float32)
    good = [
        encode_snapshot(
            Snapshot(model_id=HOSTILE, hook_name=HOOK, request_id=f"{PLANTED}-{k}", acts=acts,
                     acts_dtype="float32", request_tokens=TOKENS), 0,
        )
        for k in range(len(KINDS))
    ]  # fmt: skip
    bad = [change(envelope, D_IN) for (_, change), envelope in zip(KINDS, good, strict=True)]
    for envelope in [*good, *bad]:
        sender.produce(
            f"{kafka.topic_prefix}interp.activations", value=envelope.value, key=envelope.key,
            headers=list(envelope.headers),
        )  # fmt: skip
    assert sender.flush(30) == 0


def until_ready(address: str) -> Any:
    for _ in range(600):
        status, body = get(f"http://{address}/readyz")
        if status == 200:
            return json.loads(body)
        time.sleep(0.1)
    raise AssertionError(f"{address}: {status} {body!r}")


def wait_for(prometheus: Prometheus, expression: str) -> None:
    for _ in range(300):
        if prometheus.query(expression):
            return
        time.sleep(0.1)
    raise AssertionError(f"no series: {expression}")


def test_every_process_is_live_ready_and_scraped(scraped: Scraped) -> None:
    assert [x["health"] for x in scraped.prometheus.targets()] == ["up", "up"], scraped.prometheus.targets()
    up = {s["metric"]["process"]: s["value"][1] for s in scraped.prometheus.query("stream_interp_process_up")}
    assert up == {"encode": "1", "detect": "1", "notify": "1"}
    assert all(answer == {"ready": True, "missing": {}} for answer in scraped.ready.values())


@pytest.mark.parametrize("alert", rules())
def test_every_selector_of_the_rules_returns_series(scraped: Scraped, alert: str) -> None:
    for selector in selectors(rules()[alert]["expr"]):
        assert scraped.prometheus.query(selector), selector


def test_the_rules_tell_this_run_as_it_is(scraped: Scraped) -> None:
    states = {rule["name"]: (rule["state"], rule["health"]) for rule in scraped.prometheus.rules()}
    assert {health for _, health in states.values()} == {"ok"}
    firing = {name for name, (state, _) in states.items() if state == "firing"}
    assert firing == {"StreamInterpIncidentCritical", "StreamInterpWatchdog"}
    [alert] = scraped.prometheus.query('ALERTS{alertname="StreamInterpIncidentCritical"}')
    assert alert["metric"]["lane_id"] == scraped.lane_id
    assert alert["metric"]["model_id"] == MODEL


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_of_the_dashboards_returns_series(scraped: Scraped, path: Path) -> None:
    dashboard = json.loads(path.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(targets) >= 10
    for expression in [target["expr"] for target in targets]:
        filled = fill(expression, scraped.lane_id)
        assert scraped.prometheus.query(filled), filled
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert selector is not None
            series = scraped.prometheus.query(fill(selector[1], scraped.lane_id))
            assert all(selector[2] in one["metric"] for one in series)
            assert series


def fill(expression: str, lane_id: str) -> str:
    """As Grafana does, with `All` chosen where that is offered."""
    values = {"$__rate_interval": "1m", "$lane": lane_id, "$tenant": ".*", "$model": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def test_nothing_is_left_unread(scraped: Scraped) -> None:
    wait_for(scraped.prometheus, "sum(stream_interp_consumer_lag_records) == 0")
    topics = scraped.prometheus.query("count by (topic) (stream_interp_consumer_lag_records)")
    assert sorted(one["metric"]["topic"].partition(".")[2] for one in topics) == [
        "interp.activations",
        "interp.windows",
    ]


def test_what_was_left_out_is_counted_by_reason(scraped: Scraped) -> None:
    found_reasons = scraped.prometheus.query("stream_interp_records_rejected_total > 0")
    assert {series["metric"]["reason"] for series in found_reasons} >= {"not_safetensors", "key_mismatch", "empty"}
    too_short = scraped.prometheus.query('stream_interp_lane_requests_not_counted_total{reason="too_short"}')
    assert [float(series["value"][1]) for series in too_short] == [FILES * TOO_SHORT]


def test_a_hostile_name_is_one_inert_label(scraped: Scraped) -> None:
    [info] = scraped.prometheus.query('stream_interp_lane_info{model_id=~"evil.*"}')
    assert info["metric"]["model_id"] == f"{HOSTILE[:127]}…"
    assert scraped.prometheus.query("stream_interp_lanes == 99") == []


def test_the_logs_name_lane_partition_and_offset(scraped: Scraped) -> None:
    [run] = [path for path in scraped.logs if path.name.startswith("run")]
    lines = [json.loads(line) for line in run.read_text().splitlines()]
    assert any(line.get("lane_id") == scraped.lane_id for line in lines)
    places = {str(line["topic"]).partition(".")[2] for line in lines if {"topic", "partition", "offset"} <= line.keys()}
    assert {"interp.activations", "interp.windows"} <= places
    told = [line for line in lines if "event_id" in line]
    assert any({"lane_id", "partition", "offset", "incident_id"} <= line.keys() for line in told)


def test_no_request_id_in_metrics_or_logs_and_every_line_is_json(scraped: Scraped) -> None:
    assert PLANTED not in scraped.metrics
    for path in scraped.logs:
        lines = path.read_text().splitlines()
        assert not any(PLANTED in line for line in lines)
        for line in lines:
            if path.name.startswith("run") or line.startswith("{"):
                assert json.loads(line).keys() >= {"time", "level", "logger", "process", "message"}
