"""`topics plan` and `topics apply`: the definitions of `topics/*.yaml` against the cluster. Nothing deletes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, notice, warn
from stream_interp.errors import UsageError
from stream_interp.kafka.client import address
from stream_interp.kafka.topic_plan import Step
from stream_interp.kafka.topics import apply_topics, plan_topics

PartitionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--partitions",
        metavar="TOPIC=N",
        help="Another number of partitions than declared, such as interp.activations=1; give it every time. "
        "interp.state follows interp.windows. May repeat.",
    ),
]
ReplicationOption = Annotated[
    int | None, typer.Option("--replication", metavar="N", help="Replicas of new topics. [default: min(3, brokers)]")
]


def plan(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    partitions: PartitionsOption = None,
    replication: ReplicationOption = None,
    json: JsonOption = False,
) -> None:
    """What `apply` would create or change; changes nothing."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    steps = plan_topics(settings.kafka, _counts(partitions), replication)
    _show(steps, address(settings.kafka), json)


def apply(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    partitions: PartitionsOption = None,
    replication: ReplicationOption = None,
    json: JsonOption = False,
) -> None:
    """Create and configure the topics; never deletes. Exits 1 if a step was refused, after doing all others."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    steps = apply_topics(settings.kafka, _counts(partitions), replication)
    _show(steps, address(settings.kafka), json)
    if any(step.action == "refused" for step in steps):
        raise typer.Exit(1)


def _counts(words: Sequence[str] | None) -> dict[str, int]:
    counts = {}
    for word in words or []:
        name, _, count = word.partition("=")
        if not count.isdecimal():
            raise UsageError(f"--partitions {word}: expected TOPIC=N, such as --partitions interp.activations=1")
        counts[name] = int(count)
    return counts


def _show(steps: Sequence[Step], where: str, json: bool) -> None:
    if json:
        emit_json({"schema_version": 1, "bootstrap": where, "steps": steps})
    else:
        rows: list[list[object]] = [[s.topic, s.action, s.partitions, s.replication, _detail(s)] for s in steps]
        emit_table("", ["topic", "action", "partitions", "replicas", "detail"], rows)
    for step in steps:
        if step.action == "refused":
            warn(f"{step.topic} refused: {step.why}")
            for line in step.migration:
                notice(f"  {line}")


def _detail(step: Step) -> str:
    if step.action == "alter_config":
        return ", ".join(f"{k}: {step.config_before.get(k)} → {v}" for k, v in step.config.items())
    return step.why if step.action == "add_partitions" else ""
