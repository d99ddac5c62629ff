"""`evaluate`: drifts from a second file or of a ratio, beside the dummies; what cannot be meant is refused."""

from __future__ import annotations

import json

import pytest

from stream_interp.cli import main
from tests.integration.world import write_activations, write_sae

NAMES = ["stream-interp", "never fires", "always fires"]
SIZES = ("--before", "50", "--horizon", "150", "--window", "8")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sae(tmp_path / "sae")
    write_activations(tmp_path / "base.safetensors", 600, seed=1)
    write_activations(tmp_path / "shift.safetensors", 60, seed=2, shift=2.0)
    write_activations(tmp_path / "few.safetensors", 19, seed=2, shift=2.0)

    def run(*words, code=0):
        assert main(["evaluate", "base.safetensors", *words, "--sae", "sae", *SIZES]) == code
        return capsys.readouterr()

    return run


def test_a_second_file_is_mixed_in_by_shares(run):
    report = json.loads(run("shift.safetensors", "--json").out)
    assert [drift["mix"] for drift in report["drifts"]] == [0.05, 0.2, 1.0]
    assert report["requests_before"] == 56
    for drift in report["drifts"]:
        ours, never, always = drift["detectors"]
        assert [one["name"] for one in (ours, never, always)] == NAMES
        assert len(ours["delays"]) == len(ours["false_alarms_by_draw"]) == report["draws"] == 20
        assert (never["missed_share"], never["delay_quantiles"]["median"]) == (1.0, None)
        assert (always["missed_share"], always["false_alarms"]) == (0.0, 20 * 56)
    whole = report["drifts"][2]["detectors"][0]
    assert (whole["missed_share"], whole["false_alarms"]) == (0.0, 0)


def test_rates_of_features_are_multiplied(run):
    ratio = ("--ratio", "8", "--features", "0.5")
    [drift] = json.loads(run(*ratio, "--json").out)["drifts"]
    assert drift["ratio"] == 8.0
    assert drift["features"] > 1
    assert drift["detectors"][0]["missed_share"] == 0.0
    said = run(*ratio).out
    assert all(name in said for name in NAMES)


def test_a_seed_gives_the_same_numbers(run):
    words = ("shift.safetensors", "--mix", "0.2", "--json", "--seed")
    assert run(*words, "7").out == run(*words, "7").out != run(*words, "8").out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--ratio", "2"),
        ("--features", "0.1"),
        ("shift.safetensors", "--ratio", "2"),
        ("--ratio", "2", "--features", "0.1", "--mix", "0.2"),
    ],
)
def test_one_kind_of_drift_is_expected(run, words):
    assert "expected one kind of drift" in run(*words, code=2).err


def test_too_few_drifted_requests_are_refused_by_number(run):
    said = " ".join(run("few.safetensors", code=2).err.split())
    assert "of 19 requests to draw from 19 count" in said
    assert "needed are 20" in said
