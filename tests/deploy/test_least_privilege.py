"""The Strimzi users on a real broker that asks who may: what they may do is enough for the whole way, and no more."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stream_interp.embedded import EmbeddedKafka
from stream_interp.embedded import kafka as embedded_kafka
from stream_interp.embedded.kafka_config import NodePorts, server_properties
from stream_interp.embedded.ports import HOST, free_ports
from tests.conftest import started
from tests.deploy.deployed import kind
from tests.integration.world import HOOK, MODEL, CommandLine, write_activations, write_sae

pytestmark = pytest.mark.integration
PASSWORD = "one-for-all"
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactionalId": ResourceType.TRANSACTIONAL_ID,
}
PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}
USERS = [user["metadata"]["name"] for user in kind("KafkaUser")]


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    """Addresses of a broker with the users' rules: with a login, and without one for its owner."""
    [port] = free_ports(1)

    def with_rules(node_id: int, nodes: list[NodePorts]) -> str:
        own = nodes[node_id - 1]
        inside = f"PLAINTEXT://{HOST}:{own.broker}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        passwords = " ".join(f'"user_{user}"="{PASSWORD}"' for user in USERS)
        return server_properties(node_id, nodes) + (
            f"listeners={inside},CONTROLLER://{HOST}:{own.controller},LOGIN://{HOST}:{port}\n"
            f"advertised.listeners={inside},LOGIN://{HOST}:{port}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT\n"
            "sasl.enabled.mechanisms=PLAIN\n"
            f"listener.name.login.plain.sasl.jaas.config={module} required {passwords};\n"
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
            "super.users=User:ANONYMOUS\n"
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_kafka, "server_properties", with_rules)
        with started(EmbeddedKafka()) as kafka:
            yield f"{HOST}:{port}", kafka.bootstrap


def _bindings(user: dict[str, Any]) -> list[AclBinding]:
    return [
        AclBinding(
            RESOURCES[rule["resource"]["type"]], rule["resource"]["name"], PATTERNS[rule["resource"]["patternType"]],
            f"User:{user['metadata']['name']}", "*", AclOperation[operation.upper()], AclPermissionType.ALLOW,
        )
        for rule in user["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def as_role(
    guarded: tuple[str, str], redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], CommandLine]:
    """The command line of one role."""
    folder = tmp_path_factory.mktemp("roles")
    password = folder / "password"
    password.write_text(PASSWORD)
    login, owner = guarded
    base = {"KAFKA__GROUP_PREFIX": "interp", "BASELINE__REQUESTS": "200", "WINDOW__MAX_AGE_S": "0.5"}
    CommandLine(owner, redis_url, "", folder, base).ok("topics", "apply")
    rules = [binding for user in kind("KafkaUser") for binding in _bindings(user)]
    client = AdminClient({"bootstrap.servers": owner})  # its futures die with it
    for done in client.create_acls(rules).values():
        done.result(30)

    def of(role: str) -> CommandLine:
        user = {
            "KAFKA__PASSWORD_FILE": str(password),
            "KAFKA__LIBRDKAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA__LIBRDKAFKA__SASL_MECHANISM": "PLAIN",
            "KAFKA__LIBRDKAFKA__SASL_USERNAME": f"stream-interp-{role}",
            "NOTIFY__SINKS": '[{"name": "screen", "type": "console"}]',
        }
        return CommandLine(login, redis_url, "", folder, base | user)

    return of


def _until(true: Callable[[], object], folder: Path, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, _logs(folder)
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    except OSError:
        return False


def _logs(folder: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in folder.glob("*.log"))


def test_the_rules_are_enough_from_capture_to_a_person(as_role: Callable[[str], CommandLine], tmp_path: Path) -> None:
    sae, folder = write_sae(tmp_path / "sae"), as_role("detect").folder
    learn, shift = write_activations(tmp_path / "a.safetensors", 400, 1), tmp_path / "b.safetensors"
    write_activations(shift, 300, 2, shift=1.5)
    site = ("--model-id", MODEL, "--hook", HOOK)
    as_role("operator").ok("baseline", "build", "--sae", sae, "--from", learn, *site)
    page = f"{HOST}:{free_ports(1)[0]}"
    with ExitStack() as processes:
        for words in (("detect",), ("encode", "--sae", sae), ("notify",), ("ui", "--listen", page)):
            processes.enter_context(as_role(words[0]).process(*words))
        as_role("capture").ok("produce", "--from", learn, *site)
        as_role("operator").wait_for_state("ok")
        as_role("capture").ok("produce", "--from", shift, *site)
        as_role("operator").wait_for_state("critical")
        assert as_role("operator").alerts() != []
        _until(lambda: any(MODEL in path.read_text() for path in folder.glob("notify-*.log")), folder)
        incident = as_role("operator").json("alerts", "list")["incidents"][0]["incident_id"]
        as_role("operator").ok("alerts", "ack", incident, "--reason", "looking")
        _until(lambda: _answers(f"http://{page}/readyz"), folder)
    text = _logs(folder).lower()
    assert "authorization" not in text, text


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("capture", ["detect"]),
        ("notify", ["encode"]),
        ("keda", ["alerts", "tail", "--timeout", "3", "--from-beginning"]),
        ("ui", ["alerts", "silence", "x", "--for", "1h", "--reason", "no"]),
        ("capture", ["alerts", "tail", "--timeout", "3", "--from-beginning"]),
    ],
)
def test_what_a_role_may_not_do_ends_with_an_error(
    as_role: Callable[[str], CommandLine], role: str, words: list[str]
) -> None:
    done = as_role(role).run(*words)
    assert done.returncode in {1, 2, 5}, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("user", USERS)
def test_activations_are_for_encode_alone(
    guarded: tuple[str, str], as_role: Callable[[str], CommandLine], user: str
) -> None:
    del as_role  # its rules are in effect
    consumer = Consumer(
        {
            "bootstrap.servers": guarded[0], "group.id": "interp-follow", "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN", "sasl.username": user, "sasl.password": PASSWORD, "enable.partition.eof": True,
        }
    )  # fmt: skip
    consumer.assign([TopicPartition("interp.activations", 0, 0)])
    said = {event for event in (_next(consumer) for _ in range(8)) if event}
    consumer.close()
    assert bool(said & {"record", "_PARTITION_EOF"}) == (user == "stream-interp-encode"), said


def _next(consumer: Consumer) -> str:
    try:
        message = consumer.poll(0.5)
    except KafkaException as error:
        return str(error.args[0].name())
    if message is None:
        return ""
    return str(message.error().name()) if message.error() else "record"
