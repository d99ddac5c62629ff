"""Feature labels through a real DETECT: where they stand, where they never stand, and that decisions ignore them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from stream_interp.records.alert import AlertState
from stream_interp.records.envelope import read_json
from stream_interp.records.text import inert
from stream_interp.status.client import StatusClient
from tests.detect.lanes import LANE, Driver, requests
from tests.detect.log import consumed, ids, replayed, window_records
from tests.detect.workers import Bench
from tests.workers import until

FINGERPRINT, OTHER = "ab" * 32, "f" * 64
HOSTILE = "MEANING \x1b[31m<script>\n[bold]"
WHY_NOT = "wrong.csv is for SAE ffffffffffff, this lane has abababababab"


def label_files(folder: Path) -> str:
    """`sites`: the hook `right` with a file for its SAE, `wrong` with one for another."""
    right, wrong = folder / "right.json", folder / "wrong.csv"
    labels = {str(k): f"{HOSTILE} {k}" for k in range(49)}  # one more than the SAE has
    right.write_text(json.dumps({"sae_fingerprint": FINGERPRINT[:12], "labels": labels}))
    wrong.write_text(f"# sae_fingerprint: {OTHER}\nid,label\n" + "".join(f"{k},MEANING\n" for k in range(48)))
    return json.dumps([{"hook_name": path.stem, "feature_labels": str(path)} for path in (right, wrong)])


@pytest.fixture
def bench(kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Bench:
    bench = Bench(kafka_bootstrap, topic_prefix, tmp_path, redis_url)
    bench.options["sites"] = label_files(tmp_path)
    return bench


def drifted(hook: str, model_id: str) -> Driver:
    lane = structs.replace(LANE, model_id=model_id, hook_name=hook, sae_fingerprint=FINGERPRINT)
    driver, rng = Driver(lane=lane), np.random.default_rng(1)
    driver.learn(rng)
    driver.feed(requests(rng, 80, shift=1.5))
    return driver


def test_labels_stand_beside_features_and_change_no_decision(bench: Bench, topic_prefix: str) -> None:
    bench.apply_topics(partitions=1)
    drivers = [drifted(hook, f"m-{topic_prefix}") for hook in ("right", "wrong")]
    records = [record for driver in drivers for record in window_records(driver.windows)]
    bench.produce("interp.windows", records)
    _, told = replayed(consumed(records))
    with bench.worker() as worker:
        until(lambda: len(bench.alerts()) == len(told.alerts), worker)
        with StatusClient(bench.redis_url) as client:
            until(lambda: len(client.get(f"m-{topic_prefix}").lanes) == 2, worker)
            answer = client.get(f"m-{topic_prefix}")
        assert worker.terminate() == 0, worker.text
        assert "labels: right.json names 49 features of SAE abababababab" in worker.text
    alerts = bench.alerts()
    assert ids(alerts) == ids(told.alerts)
    states = [read_json(message.value(), AlertState) for message in bench.read("interp.alert-state")]
    found = {"right": [], "wrong": []}
    for said in (*alerts, *states):
        found[said.lane.hook_name] += said.features
    for status in (*bench.statuses().values(), *answer.lanes):
        found[status.lane.hook_name] += status.incident.features
        why = "right.json: 1 ids are no feature of this SAE (48); it has 48"
        assert status.labels == {"right": why, "wrong": WHY_NOT}[status.lane.hook_name]
    assert found["right"]
    assert found["wrong"]
    assert all(drift.label == inert(f"{HOSTILE} {drift.feature}") for drift in found["right"])
    assert {drift.label for drift in found["wrong"]} == {""}
    for topic in ("interp.state", "interp.windows", "interp.control", "interp.heartbeat"):
        content = b"".join(message.value() or b"" for message in bench.read(topic))
        assert content
        assert b"MEANING" not in content


def test_a_file_that_cannot_be_read_ends_the_start(bench: Bench) -> None:
    (bench.folder / "right.json").write_text("{")
    with bench.worker() as worker:
        assert worker.process.wait(60) == 2
        assert "right.json: not JSON" in worker.text
