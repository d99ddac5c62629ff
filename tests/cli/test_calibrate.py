"""`calibrate`: the budget and the coverage of a small lane, by seed; files that are too small."""

from __future__ import annotations

import json

import pytest

from stream_interp.cli import main
from tests.integration.world import D_SAE, write_activations, write_sae

BUDGET = ("--set", "drift.requests_per_week=500", "--draws", "4")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sae(tmp_path / "sae")
    write_activations(tmp_path / "base.safetensors", 600, seed=1)
    write_activations(tmp_path / "few.safetensors", 149, seed=1)

    def run(*words, file="base.safetensors", code=0):
        assert main(["calibrate", file, "--sae", "sae", *BUDGET, *words]) == code
        return capsys.readouterr()

    return run


def test_it_says_alarms_against_the_budget_and_what_can_be_seen(run):
    report = json.loads(run("--json").out)
    null, seen = report["null"], report["detectable_ratio"]
    assert (null["draws"], null["requests_a_draw"], null["alarms_of_budget"]) == (4, 500, 4.0)
    assert len(null["alarms_by_draw"]) == 4
    assert null["ratio_interval"][0] <= null["ratio"] <= null["ratio_interval"][1]
    assert (null["alarms"], null["verdict"]) == (0, "within")
    assert report["baseline"]["requests"] == 400
    assert report["baseline"]["held_out_requests"] == 200
    assert len(seen["by_feature"]) == D_SAE == seen["covered"] + seen["not_covered"]
    assert seen["by_feature"].count(None) == seen["not_covered"]
    medians = {(d["direction"], d["ratio"]): d["quantiles"]["best"] for d in report["expected_delay_requests"]}
    assert set(medians) == {(d, r) for d in ("up", "down") for r in (1.5, 2.0, 5.0)}
    assert medians["up", 5.0] < medians["up", 2.0]


def test_a_seed_gives_the_same_numbers(run):
    assert run("--json", "--seed", "7").out == run("--json", "--seed", "7").out


def test_a_person_gets_the_verdict_in_words(run):
    said = run()
    assert "within the budget" in " ".join(said.err.split())
    assert "expected delay, rate × 2" in said.out
    assert "of budget" not in said.out


def test_too_few_requests_are_refused_by_number(run):
    said = " ".join(run(file="few.safetensors", code=2).err.split())
    assert "149 requests; needed are 150, two thirds to learn from" in said
