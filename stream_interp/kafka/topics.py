"""Topics as code: the definitions of `topics/*.yaml` against a real cluster. Never deletes anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from importlib.resources import files
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from stream_interp.errors import DependencyUnreachable, StreamInterpError, UsageError
from stream_interp.kafka.client import address, admin, require_kafka
from stream_interp.kafka.topic_plan import Found, Step, Topic, plan, with_partitions
from stream_interp.settings import KafkaSettings

_TIMEOUT_S = 30.0


def load_topics() -> list[Topic]:
    """Every definition that came with the package, by name."""
    folder = files("stream_interp.topic_files")
    texts = sorted((file.name, file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".yaml"))
    return [msgspec.yaml.decode(text, type=Topic) for name, text in texts if name != "asyncapi.yaml"]


def plan_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int] | None = None, replication: int | None = None
) -> list[Step]:
    """What `apply_steps` would have to do on this cluster.

    Args:
        kafka: where; `topic_prefix` is put before every name.
        partitions: other counts than declared, by topic name without prefix.
        replication: of new topics; default min(3, brokers).

    Raises:
        DependencyUnreachable: no broker answers.
        UsageError: an unknown topic in `partitions`, or more replicas than brokers.
    """
    topics = load_topics()
    _check_names(partitions or {}, topics)
    require_kafka(kafka)
    client = admin(kafka)
    metadata = client.list_topics(timeout=_TIMEOUT_S)
    brokers = len(metadata.brokers)
    if replication is not None and not 1 <= replication <= brokers:
        raise UsageError(f"--replication {replication}: the cluster has {brokers} brokers; use 1…{brokers}")
    names = [kafka.topic_prefix + topic.name for topic in topics if kafka.topic_prefix + topic.name in metadata.topics]
    found = _describe(client, names, metadata.topics, address(kafka))
    return plan(with_partitions(topics, partitions or {}), found, brokers, kafka.topic_prefix, replication)


def apply_steps(kafka: KafkaSettings, steps: Sequence[Step]) -> None:
    """Carries out every step that is not refused, and returns once the cluster shows the new topics. Idempotent.

    Raises:
        DependencyUnreachable: a broker went away.
        StreamInterpError: the cluster refused a step; all others were tried.
    """
    client = admin(kafka)
    of = {action: [s for s in steps if s.action == action] for action in ("create", "alter_config", "add_partitions")}
    futures: list[tuple[str, Future[Any]]] = []
    if of["create"]:
        new = [NewTopic(s.topic, s.partitions, s.replication, config=s.config) for s in of["create"]]
        futures += client.create_topics(new, request_timeout=_TIMEOUT_S).items()
    if of["alter_config"]:
        changed = client.incremental_alter_configs([_alteration(s) for s in of["alter_config"]])
        futures += [(resource.name, future) for resource, future in changed.items()]
    if of["add_partitions"]:
        futures += client.create_partitions(
            [NewPartitions(s.topic, s.partitions) for s in of["add_partitions"]]
        ).items()
    _wait(futures, address(kafka))
    _wait_visible(client, {s.topic: s.partitions for s in of["create"] + of["add_partitions"]})


def apply_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int] | None = None, replication: int | None = None
) -> list[Step]:
    """`plan_topics`, then `apply_steps`; the steps, in which `refused` ones were left undone."""
    steps = plan_topics(kafka, partitions, replication)
    apply_steps(kafka, steps)
    return steps


def _check_names(partitions: Mapping[str, int], topics: Iterable[Topic]) -> None:
    own = {topic.name for topic in topics if not topic.same_partitions_as}
    for name, count in partitions.items():
        if name not in own or count < 1:
            raise UsageError(f"--partitions {name}={count}: expected a count ≥ 1 for one of {', '.join(sorted(own))}")


def _describe(client: AdminClient, names: Sequence[str], metadata: Mapping[str, Any], where: str) -> dict[str, Found]:
    if not names:
        return {}
    futures = client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    configs = {resource.name: _result(resource.name, future, where) for resource, future in futures.items()}
    return {
        name: Found(
            partitions=len(metadata[name].partitions),
            replication=min((len(p.replicas) for p in metadata[name].partitions.values()), default=1),
            config={entry.name: entry.value for entry in configs[name].values()},
        )
        for name in names
    }


def _alteration(step: Step) -> ConfigResource:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in step.config.items()
    ]
    return ConfigResource(ResourceType.TOPIC, step.topic, incremental_configs=entries)


def _wait(futures: Iterable[tuple[str, Future[Any]]], where: str) -> None:
    failures = []
    for name, future in futures:
        try:
            _result(name, future, where)
        except StreamInterpError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _result(name: str, future: Future[Any], where: str) -> Any:
    try:
        return future.result(timeout=_TIMEOUT_S)
    except KafkaException as error:
        fault = error.args[0]
        if fault.code() == KafkaError.TOPIC_ALREADY_EXISTS:  # another apply was faster
            return None
        if fault.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
            raise DependencyUnreachable(
                "Kafka", where, fault.str(), "Run the command again: it is idempotent."
            ) from error
        raise StreamInterpError(
            f"Kafka at {where} refused a change or look-up of topic {name}: {fault.str()}; "
            "check the user's rights (Create, Alter, DescribeConfigs, AlterConfigs), then run the command again"
        ) from error


def _wait_visible(client: AdminClient, partitions: Mapping[str, int]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        topics = client.list_topics(timeout=_TIMEOUT_S).topics
        if all(name in topics and len(topics[name].partitions) >= count for name, count in partitions.items()):
            return
        time.sleep(0.05)
