"""A listener that wants a login, on real Kafka: the right password works, a wrong one is said plainly and at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_interp.embedded import EmbeddedKafka
from stream_interp.embedded import kafka as embedded_kafka
from stream_interp.embedded.kafka_config import NodePorts, server_properties
from stream_interp.embedded.ports import HOST, free_ports
from tests.conftest import started

pytestmark = pytest.mark.integration
PASSWORD = "right-and-long"


@pytest.fixture(scope="module")
def login_address() -> Iterator[str]:
    """A broker with one more listener, SASL/PLAIN; in a properties file the last of a repeated name wins."""
    [port] = free_ports(1)

    def with_login(node_id: int, nodes: list[NodePorts]) -> str:
        own = nodes[node_id - 1]
        inside = f"PLAINTEXT://{HOST}:{own.broker}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        return server_properties(node_id, nodes) + (
            f"listeners={inside},CONTROLLER://{HOST}:{own.controller},LOGIN://{HOST}:{port}\n"
            f"advertised.listeners={inside},LOGIN://{HOST}:{port}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT\n"
            "sasl.enabled.mechanisms=PLAIN\n"
            f'listener.name.login.plain.sasl.jaas.config={module} required user_app="{PASSWORD}";\n'
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_kafka, "server_properties", with_login)
        with started(EmbeddedKafka()):
            yield f"{HOST}:{port}"


def _run(address: str, password: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    secret = folder / "password"
    secret.write_text(password + "\n")
    own = {
        "KAFKA__BOOTSTRAP": address, "KAFKA__PASSWORD_FILE": str(secret),
        "KAFKA__LIBRDKAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA__LIBRDKAFKA__SASL_MECHANISM": "PLAIN",
        "KAFKA__LIBRDKAFKA__SASL_USERNAME": "app",
    }  # fmt: skip
    env = os.environ | {f"STREAM_INTERP_{name}": value for name, value in own.items()}
    line = [sys.executable, "-m", "stream_interp.cli", *words]
    return subprocess.run(line, capture_output=True, text=True, env=env, timeout=60)


def test_the_right_password_works(login_address: str, tmp_path: Path) -> None:
    done = _run(login_address, PASSWORD, tmp_path, "topics", "apply")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["topics plan", "encode", "detect", "alerts tail"])
def test_a_wrong_password_is_exit_5_naming_the_address(login_address: str, tmp_path: Path, command: str) -> None:
    start_s = time.monotonic()
    done = _run(login_address, "wrong-and-long", tmp_path, *command.split())
    assert done.returncode == 5, done.stderr
    assert login_address in done.stderr
    assert "password" in done.stderr
    assert "wrong-and-long" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start_s < 30
