"""`interp.examples`: requests in which a feature fired strongly, by reference only. Written only where switched on."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.lane import Lane

CE_TYPE = "interp.example.v1"


class Example(Struct, frozen=True, kw_only=True):
    """Where to look for what a feature fired on; the text stays with its owner."""

    schema_version: Literal[1] = 1
    lane: Lane
    feature: int
    request_id: str
    position: int  # token in the request
    activation: float
    at_ms: int


def encode_example(example: Example) -> Envelope:
    """Keyed by lane."""
    return json_record(example.lane.lane_id, CE_TYPE, example)
