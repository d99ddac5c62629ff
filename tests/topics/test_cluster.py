"""Plan and apply against a real Apache Kafka."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from stream_interp.cli import main
from stream_interp.errors import UsageError
from stream_interp.kafka import topics
from stream_interp.kafka.client import admin, require_kafka
from stream_interp.kafka.topic_plan import Step
from stream_interp.kafka.topics import apply_topics, load_topics, plan_topics
from stream_interp.settings import KafkaSettings

NAMES = {topic.name for topic in load_topics()}


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)


@pytest.fixture
def client(kafka: KafkaSettings) -> AdminClient:
    return admin(kafka)


def actions(steps: list[Step]) -> dict[str, str]:
    return {step.topic: step.action for step in steps}


def unusual(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.topic.split(".", 1)[1], step.action) for step in steps if step.action != "unchanged"]


def partitions(client: AdminClient, prefix: str) -> dict[str, int]:
    topics = client.list_topics(timeout=10).topics
    return {name.removeprefix(prefix): len(t.partitions) for name, t in topics.items() if name.startswith(prefix)}


def setting(client: AdminClient, topic: str, name: str) -> str:
    (future,) = client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return future.result(timeout=10)[name].value


def set_retention(client: AdminClient, topic: str, retention_ms: str) -> None:
    entry = ConfigEntry("retention.ms", retention_ms, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    (future,) = client.incremental_alter_configs([resource]).values()
    future.result(timeout=10)


def create(client: AdminClient, name: str, count: int) -> None:
    (future,) = client.create_topics([NewTopic(name, count, 1)]).values()
    future.result(timeout=10)


def eventually(check: Callable[[], bool]) -> None:
    """Kafka shows an accepted change a moment later."""
    for _ in range(200):
        if check():
            return
    pytest.fail("not visible")


def test_apply_creates_every_topic_as_defined_and_a_second_time_nothing(kafka: KafkaSettings, client: AdminClient):
    assert set(actions(plan_topics(kafka)).values()) == {"create"}
    assert partitions(client, kafka.topic_prefix) == {}  # a plan changes nothing
    apply_topics(kafka)
    assert partitions(client, kafka.topic_prefix) == {topic.name: topic.partitions for topic in load_topics()}
    windows = kafka.topic_prefix + "interp.windows"
    assert setting(client, windows, "message.timestamp.type") == "LogAppendTime"
    assert setting(client, windows, "retention.ms") == "34560000000"
    assert unusual(apply_topics(kafka)) == []


def test_overrides_hold_at_creation_and_have_to_be_repeated(kafka: KafkaSettings, client: AdminClient):
    mine = {"interp.activations": 1, "interp.windows": 2}
    apply_topics(kafka, mine)
    found = partitions(client, kafka.topic_prefix)
    assert (found["interp.activations"], found["interp.windows"], found["interp.state"]) == (1, 2, 2)
    assert unusual(apply_topics(kafka, mine)) == []
    refused = [step for step in plan_topics(kafka) if step.action == "refused"]
    assert {s.topic.removeprefix(kafka.topic_prefix) for s in refused} == {
        "interp.activations", "interp.windows", "interp.state",
    }  # fmt: skip
    assert "--partitions interp.windows=2" in refused[-1].migration[0]


def test_altered_retention_is_altered_back(kafka: KafkaSettings, client: AdminClient):
    apply_topics(kafka)
    activations = kafka.topic_prefix + "interp.activations"
    set_retention(client, activations, "123456")
    eventually(lambda: setting(client, activations, "retention.ms") == "123456")
    assert unusual(apply_topics(kafka)) == [("interp.activations", "alter_config")]
    assert setting(client, activations, "retention.ms") == "21600000"
    assert unusual(plan_topics(kafka)) == []


def test_settings_that_no_definition_names_are_left_alone(kafka: KafkaSettings, client: AdminClient):
    apply_topics(kafka)
    control = kafka.topic_prefix + "interp.control"
    set_retention(client, control, "777")
    eventually(lambda: setting(client, control, "retention.ms") == "777")
    assert unusual(apply_topics(kafka)) == []
    assert setting(client, control, "retention.ms") == "777"


def test_ordered_topics_are_refused_while_all_else_is_done(kafka: KafkaSettings, client: AdminClient):
    create(client, kafka.topic_prefix + "interp.status", 1)
    create(client, kafka.topic_prefix + "interp.dlq", 1)
    steps = apply_topics(kafka)
    assert ("interp.status", "alter_config") in unusual(steps)  # its cleanup.policy
    assert ("interp.status", "refused") in unusual(steps)
    assert ("interp.dlq", "add_partitions") in unusual(steps)
    found = partitions(client, kafka.topic_prefix)
    assert (found["interp.status"], found["interp.dlq"], set(found)) == (1, 3, NAMES)
    assert setting(client, kafka.topic_prefix + "interp.status", "cleanup.policy") == "compact"
    assert unusual(plan_topics(kafka)) == [("interp.status", "refused")]


def test_more_partitions_are_fine_unless_state_no_longer_lies_beside_windows(kafka: KafkaSettings, client: AdminClient):
    apply_topics(kafka)
    for name in ("interp.windows", "interp.alerts"):
        (future,) = client.create_partitions([NewPartitions(kafka.topic_prefix + name, 8)]).values()
        future.result(timeout=10)
    eventually(lambda: partitions(client, kafka.topic_prefix)["interp.windows"] == 8)
    assert unusual(apply_topics(kafka)) == [("interp.state", "refused"), ("interp.windows", "refused")]


def test_nothing_is_ever_deleted(kafka: KafkaSettings, client: AdminClient):
    for name in ("interp.activations", "interp.unknown"):
        create(client, kafka.topic_prefix + name, 9)
    apply_topics(kafka)
    apply_topics(kafka)
    found = partitions(client, kafka.topic_prefix)
    assert (found["interp.unknown"], found["interp.activations"]) == (9, 9)


def test_two_applies_at_once_both_succeed(kafka: KafkaSettings):
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(apply_topics, kafka) for _ in range(4)]:
            done.result()
    assert unusual(plan_topics(kafka)) == []


def test_more_replicas_than_brokers_is_a_usage_error(kafka: KafkaSettings):
    with pytest.raises(UsageError, match="brokers"):
        plan_topics(kafka, replication=99)


def test_the_command_line_tells_all_this_by_its_exit_code(kafka: KafkaSettings, capfd: pytest.CaptureFixture[str]):
    where = ["--bootstrap", kafka.bootstrap, "--set", f"kafka.topic_prefix={kafka.topic_prefix}"]
    one = ["--partitions", "interp.activations=1"]
    assert main(["topics", "plan", "--json", *where, *one]) == 0
    assert {step["action"] for step in json.loads(capfd.readouterr().out)["steps"]} == {"create"}
    assert main(["topics", "apply", *where, *one]) == 0
    assert main(["topics", "apply", *where]) == 1
    assert "drain" in capfd.readouterr().err
    assert main(["topics", "plan", *where]) == 0


def test_usage_errors_come_before_any_broker(capfd: pytest.CaptureFixture[str]):
    for word in ("interp.activations", "interp.nothing=2", "interp.windows=0", "interp.state=2"):
        assert main(["topics", "apply", "--bootstrap", "127.0.0.1:1", "--partitions", word]) == 2
        assert "--partitions" in capfd.readouterr().err


def test_an_unreachable_broker_is_named(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(topics, "require_kafka", partial(require_kafka, timeout_s=0.5))
    assert main(["topics", "plan", "--bootstrap", "127.0.0.1:1"]) == 5
    assert "127.0.0.1:1" in capfd.readouterr().err
