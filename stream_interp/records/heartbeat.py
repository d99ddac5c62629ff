"""`interp.heartbeat`: every process says that it lives and what it holds."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stream_interp.records.envelope import Envelope, json_record

CE_TYPE = "interp.heartbeat.v1"


class Heartbeat(Struct, frozen=True, kw_only=True):
    """State of one process at `as_of_ms`."""

    schema_version: Literal[1] = 1
    process_id: str
    kind: Literal["encode", "detect", "notify"]
    as_of_ms: int
    started_at_ms: int
    version: str
    partitions: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    stopping: bool = False  # the last one of a process that was asked to end
    sinks_failing: list[str] = field(default_factory=list)  # of NOTIFY: their last delivery was given up


def encode_heartbeat(heartbeat: Heartbeat) -> Envelope:
    """Keyed by process."""
    return json_record(heartbeat.process_id, CE_TYPE, heartbeat)
