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
_AGAIN = "Run the command again: it is idempotent."
_DOABLE = {"create", "alter_config", "add_partitions"}
_DONE_BY_ANOTHER = {KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS}  # an apply at the same time
_GONE = {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}


def load_topics() -> list[Topic]:
    """Every definition that came with the package, by name."""
    folder = files("stream_interp.topic_files")
    texts = sorted((file.name, file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".yaml"))
    return [msgspec.yaml.decode(text, type=Topic) for name, text in texts if name != "asyncapi.yaml"]


def plan_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int] | None = None, replication: int | None = None
) -> list[Step]:
    """What `apply_topics` would do on this cluster.

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
    metadata = _metadata(client, address(kafka))
    brokers = len(metadata.brokers)
    if replication is not None and not 1 <= replication <= brokers:
        raise UsageError(f"--replication {replication}: the cluster has {brokers} brokers; use 1…{brokers}")
    names = [kafka.topic_prefix + topic.name for topic in topics if kafka.topic_prefix + topic.name in metadata.topics]
    found = _describe(client, names, metadata.topics, address(kafka))
    return plan(with_partitions(topics, partitions or {}), found, brokers, kafka.topic_prefix, replication)


def apply_topics(
    kafka: KafkaSettings, partitions: Mapping[str, int] | None = None, replication: int | None = None
) -> list[Step]:
    """Carries out `plan_topics`, whose `refused` steps stay undone; returns it once the cluster shows the rest.

    Idempotent, also beside another `apply`.

    Raises:
        DependencyUnreachable, UsageError: as `plan_topics`.
        StreamInterpError: the cluster refused a step (all others were tried), or does not show its effect.
    """
    steps = plan_topics(kafka, partitions, replication)
    _execute(admin(kafka), steps, address(kafka))
    deadline_s = time.monotonic() + _TIMEOUT_S
    while left := [s for s in plan_topics(kafka, partitions, replication) if s.action in _DOABLE]:
        if time.monotonic() > deadline_s:
            raise StreamInterpError(
                f"Kafka at {address(kafka)} accepted {left[0].action} of topic {left[0].topic} but does not show it "
                f"after {_TIMEOUT_S:.0f} s; look at it with `stream-interp topics plan`"
            )
        time.sleep(0.1)
    return steps


def _execute(client: AdminClient, steps: Iterable[Step], where: str) -> None:
    by: dict[str, list[Step]] = {}
    for step in steps:
        by.setdefault(step.action, []).append(step)
    futures: list[tuple[str, Future[Any]]] = []
    if new := [NewTopic(s.topic, s.partitions, s.replication, config=s.config) for s in by.get("create", [])]:
        futures += client.create_topics(new, request_timeout=_TIMEOUT_S).items()
    if changed := [_alteration(s) for s in by.get("alter_config", [])]:
        futures += [(r.name, future) for r, future in client.incremental_alter_configs(changed).items()]
    if more := [NewPartitions(s.topic, s.partitions) for s in by.get("add_partitions", [])]:
        futures += client.create_partitions(more).items()
    failures = [failure for name, future in futures if (failure := _failure(name, future, where))]
    if failures:
        raise failures[0]


def _check_names(partitions: Mapping[str, int], topics: Iterable[Topic]) -> None:
    own = {topic.name for topic in topics if not topic.same_partitions_as}
    for name, count in partitions.items():
        if name not in own or count < 1:
            raise UsageError(f"--partitions {name}={count}: expected a count ≥ 1 for one of {', '.join(sorted(own))}")


def _metadata(client: AdminClient, where: str) -> Any:
    try:
        return client.list_topics(timeout=_TIMEOUT_S)
    except KafkaException as error:
        raise DependencyUnreachable("Kafka", where, error.args[0].str(), _AGAIN) from error


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


def _failure(name: str, future: Future[Any], where: str) -> StreamInterpError | None:
    try:
        _result(name, future, where)
    except StreamInterpError as error:
        return error
    return None


def _result(name: str, future: Future[Any], where: str) -> Any:
    try:
        return future.result(timeout=_TIMEOUT_S)
    except KafkaException as error:
        fault = error.args[0]
        if fault.code() in _DONE_BY_ANOTHER:
            return None
        if fault.code() in _GONE:
            raise DependencyUnreachable("Kafka", where, fault.str(), _AGAIN) from error
        raise StreamInterpError(
            f"Kafka at {where} refused a change or look-up of topic {name}: {fault.str()}; "
            "check the user's rights (Create, Alter, DescribeConfigs, AlterConfigs), then run the command again"
        ) from error
