"""`interp.deliveries`: what NOTIFY did with an event at a sink, so that a restart does not send it twice."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_interp.records.envelope import Envelope, json_record

CE_TYPE = "interp.delivery.v1"


class Delivery(Struct, frozen=True, kw_only=True):
    """The last word on one event at one sink."""

    schema_version: Literal[1] = 1
    sink: str
    event_id: str
    outcome: Literal["begun", "delivered", "failed", "silenced"]  # begun: the sink appeared; event_id is `begin`
    attempts: int
    at_ms: int
    detail: str = ""
    incident_id: str = ""


def encode_delivery(delivery: Delivery) -> Envelope:
    """Keyed by sink and event, for a compacted topic."""
    return json_record(_key(delivery), CE_TYPE, delivery)


def forget_delivery(delivery: Delivery) -> Envelope:
    """Its tombstone."""
    return Envelope(_key(delivery).encode(), [], None)


def _key(delivery: Delivery) -> str:
    return f"{delivery.sink}/{delivery.event_id}"
