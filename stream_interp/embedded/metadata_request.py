"""Asks a broker which brokers it knows, in Kafka's own protocol: the proof that it serves clients.

Only `stream_interp.kafka` imports confluent_kafka, and `embedded` does not depend on it; one fixed request suffices.
"""

from __future__ import annotations

import socket
import struct

TIMEOUT_S = 2.0
_MAX_REPLY_BYTES = 1 << 20
# api_key 3 = Metadata, version 1, correlation id 1, client id "probe", an empty array of topics.
_REQUEST = struct.pack(">hhih5si", 3, 1, 1, 5, b"probe", 0)


def brokers_known_by(host: str, port: int) -> frozenset[int]:
    """The node ids in the broker's metadata; empty while it does not answer yet."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            with connection.makefile("rb") as stream:
                (size_bytes,) = struct.unpack(">i", stream.read(4))
                return node_ids(stream.read(min(size_bytes, _MAX_REPLY_BYTES)))
    except (OSError, struct.error):
        return frozenset()


def node_ids(reply: bytes) -> frozenset[int]:
    """The node ids of a Metadata v1 reply (without its length prefix).

    Raises:
        struct.error: the reply is cut short.
    """
    _, brokers = struct.unpack_from(">ii", reply)
    ids, position = set(), 8
    for _ in range(brokers):
        node_id, host_bytes = struct.unpack_from(">ih", reply, position)
        position += 6 + host_bytes + 4
        (rack_bytes,) = struct.unpack_from(">h", reply, position)
        position += 2 + max(rack_bytes, 0)
        ids.add(node_id)
    return frozenset(ids)
