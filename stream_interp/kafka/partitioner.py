"""In which partition a key lies: the one place that must agree with every producer's `murmur2_random`."""

from __future__ import annotations

from confluent_kafka import murmur2


def partition_of(key: str, partitions: int) -> int:
    """The partition of a record with this key in a topic of so many partitions."""
    return murmur2(key.encode(), partitions)
