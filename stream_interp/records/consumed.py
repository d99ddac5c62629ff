"""A record as a consumer got it: what was sent, and where it lies."""

from __future__ import annotations

from typing import NamedTuple


class Consumed(NamedTuple):
    """One record of one topic partition. All of `key`, `headers` and `value` are what someone else wrote."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    headers: list[tuple[str, bytes | str | None]]
    value: bytes | None
