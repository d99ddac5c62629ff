"""`doctor` against real servers."""

from __future__ import annotations

from pathlib import Path

from tests.integration.world import CommandLine


def test_a_chosen_number_of_partitions_is_no_fault_and_missing_topics_are(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, {})
    before = command.run("doctor", "--json")
    assert before.returncode == 1
    assert "interp.activations (create)" in before.stdout
    command.ok("topics", "apply", "--partitions", "interp.activations=1", "--partitions", "interp.windows=2")
    report = command.json("doctor")
    assert report["ok"] is True
    assert {check["name"]: check["state"] for check in report["checks"]} == {
        "kafka": "ok", "topics": "ok", "redis": "ok", "sae": "skipped"
    }  # fmt: skip
