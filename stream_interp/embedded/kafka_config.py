"""What a broker is told: pure text from addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream_interp.embedded.ports import HOST

MESSAGE_MAX_BYTES = 16 * 1024 * 1024
LOG_DIR = "log"
"""Kafka's data, relative to the node's folder: no path has to survive Java's properties syntax."""


@dataclass(frozen=True)
class NodePorts:
    """The two ports of one node: clients talk to `broker`, nodes among themselves also to `controller`."""

    broker: int
    controller: int


def server_properties(node_id: int, nodes: Sequence[NodePorts]) -> str:
    """The `server.properties` of node `node_id` (from 1) in a cluster of `nodes`, each broker and controller."""
    own, replicas = nodes[node_id - 1], min(len(nodes), 3)
    in_sync = 2 if replicas == 3 else 1
    # The session timeout is also how long a restart after `kill -9` waits for the broker's former self to expire.
    session_ms = 6000 if len(nodes) > 1 else 3000
    voters = ",".join(f"{i}@{HOST}:{ports.controller}" for i, ports in enumerate(nodes, start=1))
    return f"""\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{HOST}:{own.broker},CONTROLLER://{HOST}:{own.controller}
advertised.listeners=PLAINTEXT://{HOST}:{own.broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={LOG_DIR}
auto.create.topics.enable=false
message.max.bytes={MESSAGE_MAX_BYTES}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1500
"""
