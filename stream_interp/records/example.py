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
    request_id: str  # or the hex HMAC-SHA256 of it, where `hashed`
    hashed: bool = False
    position: int | None = None  # token in the request, where it is known
    activation: float  # the largest of this feature in any request of one cut
    at_ms: int  # the window's closed_at


def encode_example(example: Example) -> Envelope:
    """Keyed by lane."""
    return json_record(example.lane.lane_id, CE_TYPE, example)
