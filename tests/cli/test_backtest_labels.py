"""`backtest` with feature labels: of a file for its SAE, of one for another, from the settings, hostile."""

from __future__ import annotations

import json
import re

import pytest

from stream_interp.cli import main
from stream_interp.sae import load
from tests.integration.world import write_activations, write_sae

LABELS = {str(k): f"[red]label {k}[/red]\x1b[2J\n<b>" for k in range(96)}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sae(tmp_path / "sae")
    write_activations(tmp_path / "baseline.safetensors", 200, seed=1)
    write_activations(tmp_path / "shift.safetensors", 40, seed=3, shift=2.0)
    fingerprint = load(tmp_path / "sae", device="cpu").fingerprint
    for name, of in (("labels.json", fingerprint), ("other.json", "f" * 64)):
        (tmp_path / name).write_text(json.dumps({"sae_fingerprint": of[:12], "labels": LABELS}))

    def run(*words):
        files = ("--sae", "sae", "--baseline", "baseline.safetensors", "--stream", "shift.safetensors")
        assert main(["backtest", *files, *words]) == 0
        return capsys.readouterr()

    return run


def labels_of(said):
    [stream] = json.loads(said.out)["streams"]
    assert stream["detections"]
    return [(d["feature"], d["label"]) for d in stream["detections"]]


def test_labels_of_the_sae_are_shown_inert(run):
    assert all(
        f"label {f}[" in label and label.isprintable()
        for f, label in labels_of(run("--labels", "labels.json", "--json"))
    )
    table = run("--labels", "labels.json").out
    assert "[red]label" in table
    assert "\x1b" not in table
    assert not re.search(r"\d\.\d{5}", table)  # nobody reads sixteen digits


def test_the_settings_name_them_too(run):
    sites = json.dumps([{"feature_labels": "other.json"}, {"model_id": "credit", "feature_labels": "labels.json"}])
    assert all(f"label {f}[" in label for f, label in labels_of(run("--set", f"sites={sites}", "--json")))


def test_labels_of_another_sae_are_not_shown_and_it_says_why(run):
    said = run("--labels", "other.json", "--json")
    assert {label for _, label in labels_of(said)} == {""}
    assert "other.json is for SAE ffffffffffff" in " ".join(said.err.split())
