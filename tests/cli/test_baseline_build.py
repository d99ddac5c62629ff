"""`baseline build` on a real Kafka."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream_interp.kafka.control import publish_controls, read_controls
from stream_interp.records.control import Order, make_order
from stream_interp.records.lane import Lane
from stream_interp.settings import KafkaSettings
from tests.integration.world import HOOK, MODEL, CommandLine, write_activations

LANE = Lane(model_id=MODEL, hook_name=HOOK)


@pytest.mark.timeout(120)
def test_a_baseline_is_newer_than_what_clocks_that_are_ahead_have_ordered(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Otherwise ENCODE and DETECT would pass over it, and nobody would say so."""
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, {})
    command.ok("topics", "apply")
    kafka = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    ahead_ms = time.time_ns() // 1_000_000 + 2 * 3_600_000
    publish_controls(kafka, [make_order(Order(kind="relearn", lane=LANE, version=ahead_ms), "ann", "wanted")])
    source = write_activations(tmp_path / "baseline.safetensors", 200, seed=1)
    command.ok("baseline", "build", "--from", source, "--model-id", MODEL, "--hook", HOOK)
    made = [c.manifest for c in read_controls(kafka) if c.manifest.kind in ("baseline", "projector")]
    assert [m.version > ahead_ms for m in made] == [True, True]


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
