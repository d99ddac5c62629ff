"""What `topics apply` would do to a cluster: definitions in, found topics in, steps out. Pure.

Nothing is ever deleted. Partitions of an ordered topic never grow: keys would move to other partitions, and what
belongs to one lane would lie in two places, in no order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

Action = Literal["create", "alter_config", "add_partitions", "refused", "unchanged"]


class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One record type that lies on a topic; `schema` and `examples` are files under `topics/`."""

    type: str
    content_type: str
    schema: str
    examples: list[str]


class Topic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `topics/*.yaml`: what a topic has to be like."""

    name: str
    owner: str  # the process that writes it
    description: str
    key: str
    ordered: bool  # the number of partitions may never grow
    partitions: int
    partitions_why: str
    same_partitions_as: str = ""  # a topic whose partitions correspond to this one's, number by number
    replication: int  # where the cluster has as many brokers
    backfill: str = ""  # what a migration to more partitions has to carry over
    config: dict[str, str | int]
    records: list[Message]


class Found(Struct, frozen=True):
    """A topic as the cluster has it. `config` holds every entry, defaults too."""

    partitions: int
    replication: int
    config: Mapping[str, str | None]


class Step(Struct, frozen=True, kw_only=True):
    """One thing that `apply` does, or refuses to do, to one topic."""

    topic: str
    action: Action
    partitions: int
    replication: int
    config: dict[str, str] = field(default_factory=dict)  # entries to set
    config_before: dict[str, str | None] = field(default_factory=dict)
    why: str = ""
    migration: list[str] = field(default_factory=list)  # what to do instead of a refused step


def with_partitions(topics: Sequence[Topic], overrides: Mapping[str, int | None]) -> list[Topic]:
    """The definitions with other partition counts by topic name; topics tied to one of them follow it."""

    def wanted(topic: Topic) -> int:
        return overrides.get(topic.same_partitions_as or topic.name) or topic.partitions

    return [replace(topic, partitions=wanted(topic)) for topic in topics]


def plan(
    topics: Sequence[Topic], found: Mapping[str, Found], brokers: int, prefix: str = "", replication: int | None = None
) -> list[Step]:
    """Steps that turn the found topics into the defined ones, in the order of `topics`.

    Args:
        topics: the definitions.
        found: existing topics by full name, prefix and all; others are ignored.
        brokers: how many the cluster has.
        prefix: put before every name.
        replication: of new topics; default what the definition asks for, or `brokers` where these are fewer.
    """
    steps: list[Step] = []
    for topic in topics:
        twins = [found[name] for name in _twins(topic, topics, prefix) if name in found]
        now = found.get(prefix + topic.name)
        if now is None:
            steps.append(_create(topic, twins, prefix, replication or min(topic.replication, brokers)))
        else:
            steps += _change(topic, now, twins, prefix)
    return steps


def _twins(topic: Topic, topics: Sequence[Topic], prefix: str) -> list[str]:
    leader = topic.same_partitions_as or topic.name
    return [prefix + t.name for t in topics if t.name != topic.name and leader in (t.name, t.same_partitions_as)]


def _create(topic: Topic, twins: Sequence[Found], prefix: str, replication: int) -> Step:
    partitions = max((twin.partitions for twin in twins), default=topic.partitions)
    return Step(
        topic=prefix + topic.name, action="create", partitions=partitions, replication=replication,
        config=_wanted_config(topic, replication), why="does not exist",
    )  # fmt: skip


def _change(topic: Topic, now: Found, twins: Sequence[Found], prefix: str) -> list[Step]:
    base = Step(
        topic=prefix + topic.name, action="unchanged", partitions=now.partitions, replication=now.replication
    )  # fmt: skip
    steps = []
    wanted = _wanted_config(topic, now.replication)
    changed = {name: value for name, value in wanted.items() if now.config.get(name) != value}
    if changed:
        before = {name: now.config.get(name) for name in changed}
        steps.append(replace(base, action="alter_config", config=changed, config_before=before))
    uneven = sorted({twin.partitions for twin in twins} - {now.partitions})
    if uneven:
        steps.append(_refused(base, topic, f"but each belongs to one of a topic that has {uneven[0]}"))
    elif now.partitions < topic.partitions and topic.ordered:
        why = f"{topic.partitions} are declared; adding partitions would break the order of its keys"
        steps.append(_refused(base, topic, why))
    elif now.partitions < topic.partitions:
        steps.append(replace(base, action="add_partitions", partitions=topic.partitions, why=f"found {now.partitions}"))
    return steps or [base]


def _wanted_config(topic: Topic, replication: int) -> dict[str, str]:
    durable = {"min.insync.replicas": "2"} if replication >= 3 else {}  # acks=all means little with the default of 1
    return {name: str(value) for name, value in topic.config.items()} | durable


def _refused(base: Step, topic: Topic, why: str) -> Step:
    keep = topic.same_partitions_as or topic.name
    migration = [
        f"keep it: pass --partitions {keep}={base.partitions} to every plan and apply",
        "or migrate: 1. drain: stop the producers, wait until ENCODE and DETECT have no lag, stop every process",
        "2. new topics: set kafka.topic_prefix to a new prefix and run `stream-interp topics apply`",
        f"3. backfill: {topic.backfill}; publish the baselines there, too (`stream-interp baseline build` per lane)",
        "4. re-point: start ENCODE and DETECT, then the producers, with the new prefix; nothing deletes the old topics",
    ]
    return replace(base, action="refused", why=f"found {base.partitions} partitions, {why}", migration=migration)
