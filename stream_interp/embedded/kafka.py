"""Apache Kafka itself, in KRaft mode, one node or three, each broker and controller in one JVM."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from stream_interp.embedded.data_dir import DataDir
from stream_interp.embedded.jars import kafka_classpath
from stream_interp.embedded.java import find_java
from stream_interp.embedded.kafka_config import NodePorts, server_properties
from stream_interp.embedded.metadata_request import brokers_known_by
from stream_interp.embedded.ports import HOST, free_ports, require_free
from stream_interp.embedded.process import GuardedProcess
from stream_interp.errors import DependencyUnreachable, UsageError

JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)
START_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0
ALLOWED_NODES = (1, 3)


class EmbeddedKafka:
    """A Kafka cluster on 127.0.0.1 that lives no longer than this process.

    Args:
        data_dir: keeps topics and their records for the next start; None: a temporary folder, removed by `stop`.
        nodes: 1, or 3 with replication 3 and `min.insync.replicas` 2.
        port: of node 1, the others follow it; None: free ports.

    Raises:
        UsageError: another number of nodes.
    """

    def __init__(self, data_dir: Path | None = None, *, nodes: int = 1, port: int | None = None) -> None:
        if nodes not in ALLOWED_NODES:
            raise UsageError(f"nodes: found {nodes}, expected 1 or 3")
        free = free_ports(2 * nodes)
        brokers = free[:nodes] if port is None else range(port, port + nodes)
        self._ports = [NodePorts(*pair) for pair in zip(brokers, free[nodes:], strict=True)]
        self._data = DataDir(data_dir, "kafka")
        self._running: dict[int, GuardedProcess] = {}
        self._java: tuple[str, ...] = ()

    @property
    def bootstrap(self) -> str:
        """`host:port`, comma-separated, of all nodes."""
        return ",".join(f"{HOST}:{ports.broker}" for ports in self._ports)

    @property
    def pids(self) -> dict[int, int]:
        """Node id -> process group of the running node."""
        return {node: process.pid for node, process in self._running.items()}

    def start(self) -> None:
        """Format a new data folder, start all nodes, return when each answers and knows all others.

        Raises:
            DependencyUnreachable: no Java, no jars, or a node did not start; the end of its log is shown.
            IntegrityError: a jar is not the one that the lock names.
            UsageError: a port is taken, or the data folder was made for another number of nodes.
        """
        for ports in self._ports:
            require_free(ports.broker)
        try:
            self._java = (str(find_java(os.environ)), *JVM_OPTIONS, "-cp", kafka_classpath(os.environ))
            self._data.open()
            if not self._data.path.exists():
                self._format()
            self._check_nodes()
            for node in range(1, len(self._ports) + 1):
                self._launch(node)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM to all nodes, SIGKILL after a grace; removes a temporary data folder, and then without the grace."""
        for process in self._running.values():
            process.signal(signal.SIGTERM)
        grace_s = 0.0 if self._data.is_temporary else STOP_GRACE_S
        for process in self._running.values():
            process.stop(grace_s)
        self._running.clear()
        self._data.close()

    def kill(self, node: int = 1) -> None:
        """`kill -9` a node, for crash tests; its data stays."""
        self._running.pop(node).kill()

    def restart(self, node: int = 1) -> None:
        """Start a killed node again on its data and ports; returns when it answers and knows all running nodes."""
        self._launch(node)
        self._wait_until_ready()

    def ended(self) -> DependencyUnreachable | None:
        """The error to raise if a node ended that nobody stopped or killed."""
        for node, process in self._running.items():
            if (code := process.exit_code()) is not None:
                return process.failure(self._address(node), f"ended by itself with code {code}")
        return None

    def _address(self, node: int) -> str:
        return f"{HOST}:{self._ports[node - 1].broker}"

    def _check_nodes(self) -> None:
        made_for = len(list(self._data.path.glob("node-*")))
        if made_for != len(self._ports):
            raise UsageError(
                f"{self._data.path}: found data of {made_for} nodes, expected {len(self._ports)}. "
                f"Use --nodes {made_for}, or another data folder."
            )

    def _format(self) -> None:
        """Nodes are formatted aside and renamed into place: the folder exists whole or not at all."""
        aside = self._data.path.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: one id in 64 begins with a dash, which the tool would take for an option.
        command = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", "server.properties")
        formatting: list[GuardedProcess] = []
        try:
            formatting.extend(self._spawn(node, command, home=aside) for node in range(1, len(self._ports) + 1))
            for process in formatting:
                if code := process.wait(START_TIMEOUT_S):
                    raise process.failure(str(aside), f"formatting ended with code {code}")
        finally:
            for process in formatting:
                process.kill()
        aside.rename(self._data.path)

    def _launch(self, node: int) -> None:
        self._running[node] = self._spawn(node, ("kafka.Kafka", "server.properties"), home=self._data.path)

    def _spawn(self, node: int, command: Sequence[str], *, home: Path) -> GuardedProcess:
        folder = home / f"node-{node}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.properties").write_text(server_properties(node, self._ports))
        log_path = folder / "broker.log"
        return GuardedProcess(f"Embedded Kafka node {node}", (*self._java, *command), cwd=folder, log_path=log_path)

    def _wait_until_ready(self) -> None:
        for node, process in self._running.items():
            knows_all = partial(self._knows_all_running, node)
            process.wait_until(knows_all, address=self._address(node), timeout_s=START_TIMEOUT_S)

    def _knows_all_running(self, node: int) -> bool:
        return brokers_known_by(HOST, self._ports[node - 1].broker) >= self._running.keys()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
