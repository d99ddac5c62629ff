"""`baseline build`: for the lane that ENCODE will make, signed by whoever made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_interp.sae import load
from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae

SITE = ("--model-id", MODEL, "--hook", HOOK)


@pytest.mark.timeout(120)
def test_it_takes_the_sites_sae_and_says_who_made_it(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, {})
    command.ok("topics", "apply")
    write_sae(tmp_path / "sae")
    write_activations(tmp_path / "baseline.safetensors", 200, seed=1)
    sites = json.dumps([{"model_id": MODEL, "sae": "sae"}])
    words = ("baseline", "build", "--from", "baseline.safetensors", *SITE, "--author", "ada")
    made = command.json(*words, "--reason", "first", "--set", f"sites={sites}")
    assert made["lane"]["sae_fingerprint"] == load(tmp_path / "sae", device="cpu").fingerprint
    assert (made["author"], made["reason"]) == ("ada", "first")
    assert command.json(*words)["lane"]["sae_fingerprint"] == "none"
    [with_sae, without] = sorted(
        command.json("baseline", "list")["baselines"], key=lambda card: card["reason"] != "first"
    )
    assert (with_sae["author"], without["reason"]) == ("ada", "baseline build from baseline.safetensors")
