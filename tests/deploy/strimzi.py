"""Topics and users for Strimzi from `topics/*.yaml`: `python -m tests.deploy.strimzi` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stream_interp.kafka.topic_plan import Topic
from stream_interp.kafka.topics import load_topics

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
CLUSTER = {"strimzi.io/cluster": "interp"}


@dataclass(frozen=True)
class Role:
    """What one user may do; topics without `interp.`, groups and transactional ids without `interp-`."""

    name: str
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    sees: Sequence[str] = ()  # offsets only
    groups: Sequence[str] = ()
    transactions: Sequence[str] = ()  # beginnings; the instance follows
    sees_groups: Sequence[str] = ()


# Groups of those who read for themselves: nothing is committed in them, but librdkafka asks for them all the same.
READERS = ("alerts", "backlog", "control", "examples", "follow", "latest", "lookup", "range", "state", "story")
FOR_PEOPLE = ("alerts", "alert-state", "control", "cuts", "heartbeat", "state", "status", "windows")

ROLES = (
    Role("capture", writes=["activations"]),
    Role(
        "encode",
        reads=["activations", "control", "cuts"],
        writes=["windows", "cuts", "dlq", "examples", "heartbeat"],
        groups=["encode", *READERS],
        transactions=["encode"],
    ),
    Role(
        "detect",
        reads=["windows", "control", "state", "heartbeat"],
        writes=["windows", "control", "state", "alerts", "alert-state", "status", "heartbeat"],
        groups=["detect", *READERS],
        transactions=["detect"],
    ),
    Role(
        "notify",
        reads=["alerts", "control", "deliveries", "heartbeat", "status"],
        writes=["deliveries", "dlq", "heartbeat"],
        groups=["notify", "notify-ends", *READERS],
    ),
    Role("ui", reads=FOR_PEOPLE, groups=READERS),
    # People and their `stream-interp alerts`, `baseline`, `evidence`: all but activations and dead letters.
    Role(
        "operator",
        reads=[*FOR_PEOPLE, "deliveries", "examples"],
        writes=["control"],
        groups=READERS,
        transactions=["control"],
    ),
    Role("keda", sees=["activations"], sees_groups=["encode"]),
)


def topic(definition: Topic) -> dict[str, Any]:
    """The KafkaTopic of one definition."""
    spec = {"partitions": definition.partitions, "replicas": definition.replication, "config": dict(definition.config)}
    return _resource("KafkaTopic", definition.name, spec)


def user(role: Role) -> dict[str, Any]:
    """The KafkaUser of one role."""
    acls = [
        _rule("topic", f"interp.{name}", "literal", [*_operations(role, name), "Describe"])
        for name in dict.fromkeys([*role.reads, *role.writes, *role.sees])
    ]
    acls += [_rule("group", f"interp-{name}", "literal", ["Read", "Describe"]) for name in role.groups]
    acls += [_rule("group", f"interp-{name}", "literal", ["Describe"]) for name in role.sees_groups]
    acls += [_rule("transactionalId", f"interp-{name}-", "prefix", ["Write", "Describe"]) for name in role.transactions]
    spec = {"authentication": {"type": "scram-sha-512"}, "authorization": {"type": "simple", "acls": acls}}
    return _resource("KafkaUser", f"stream-interp-{role.name}", spec)


def generated() -> dict[str, str]:
    """File under `deploy/kubernetes` → content."""
    return {
        "kafka-topics.yaml": _documents(topic(definition) for definition in load_topics()),
        "kafka-users.yaml": _documents(map(user, ROLES)),
    }


def _operations(role: Role, name: str) -> list[str]:
    return [operation for operation, names in (("Read", role.reads), ("Write", role.writes)) if name in names]


def _rule(kind: str, name: str, pattern: str, operations: list[str]) -> dict[str, Any]:
    return {"resource": {"type": kind, "name": name, "patternType": pattern}, "operations": operations}


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": CLUSTER}
    return {"apiVersion": "kafka.strimzi.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _documents(documents: Iterable[dict[str, Any]]) -> str:
    text = "---\n".join(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120) for document in documents)
    return f"# Written by `python -m tests.deploy.strimzi` from topics/*.yaml; do not edit.\n{text}"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: object) -> bool:
        return True


if __name__ == "__main__":
    for name, content in generated().items():
        (FOLDER / name).write_text(content)
