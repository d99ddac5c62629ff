"""`baseline build`: for the lane that ENCODE will make, signed by whoever made it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from stream_interp.kafka.control import publish_controls, read_controls
from stream_interp.records.control import Order, make_order
from stream_interp.records.lane import Lane
from stream_interp.sae import load
from stream_interp.settings import KafkaSettings
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


@pytest.mark.timeout(120)
def test_a_baseline_is_newer_than_what_clocks_that_are_ahead_have_ordered(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Otherwise ENCODE and DETECT would pass over it, and nobody would say so."""
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, {})
    command.ok("topics", "apply")
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    lane = Lane(model_id=MODEL, hook_name=HOOK)
    ahead_ms = time.time_ns() // 1_000_000 + 2 * 3_600_000
    publish_controls(kafka, [make_order(Order(kind="relearn", lane=lane, version=ahead_ms), "ann", "wanted")])
    source = write_activations(tmp_path / "baseline.safetensors", 200, seed=1)
    command.ok("baseline", "build", "--from", source, *SITE)
    made = [c.manifest for c in read_controls(kafka) if c.manifest.kind in ("baseline", "projector")]
    assert [m.version > ahead_ms for m in made] == [True, True]
