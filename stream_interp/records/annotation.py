"""What operators said of an incident or a lane, on `interp.alerts` beside the transitions that it is no part of."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from stream_interp.records.alert import Alert, AlertEvent
from stream_interp.records.control import Order, Versioned
from stream_interp.records.envelope import CLOUDEVENT_JSON, Envelope, read_json, rfc3339
from stream_interp.records.lane import Lane, digest

CE_TYPE: Literal["interp.alert.annotation.v1"] = "interp.alert.annotation.v1"

_DAY_MS = 24 * 3600 * 1000
MAX_SILENCE_MS = 7 * _DAY_MS
MAX_BLIND_SILENCE_MS = _DAY_MS  # on `blind` and `integrity_error`: nobody may turn the monitor itself off for long
NEVER_LONG_SILENT = frozenset({"blind", "integrity_error"})


class Annotation(Struct, frozen=True, kw_only=True):
    """An ack, a silence or its end."""

    schema_version: Literal[1] = 1
    event_id: str
    lane: Lane
    kind: Literal["ack", "silence", "unsilence"]
    incident_id: str = ""
    author: str  # as claimed
    reason: str
    at_ms: int
    until_ms: int = 0


class AnnotationEvent(Struct, frozen=True, kw_only=True):
    """The annotation as it lies on the topic: a CloudEvent in structured mode."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: Literal["interp.alert.annotation.v1"] = CE_TYPE
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Annotation


class _AnyEvent(Struct, frozen=True):
    type: str


def make_annotation(record: Versioned, order: Order, logged_ms: int = -1) -> Annotation:
    """What an ack, silence or unsilence looks like on `interp.alerts`.

    Args:
        logged_ms: when the log took it, Unix epoch ms; not above 0: it does not say.
    """
    manifest = record.manifest
    assert order.kind in ("ack", "silence", "unsilence")
    return Annotation(
        event_id=digest(manifest.key, manifest.version)[:32], lane=order.lane, kind=order.kind,
        incident_id=order.incident_id, author=manifest.author, reason=manifest.reason,
        at_ms=said_at_ms(order, logged_ms), until_ms=order.until_ms,
    )  # fmt: skip


def said_at_ms(order: Order, logged_ms: int) -> int:
    """By the log's clock, Unix epoch ms: an operator's may be wrong, and a version only says which order is newer."""
    return logged_ms if logged_ms > 0 else order.version


def encode_annotation(annotation: Annotation) -> Envelope:
    """CloudEvents structured mode, keyed by lane."""
    event = AnnotationEvent(
        id=annotation.event_id,
        source=f"/{annotation.lane.tenant}/{annotation.lane.model_id}",
        subject=annotation.incident_id or annotation.lane.lane_id,
        time=rfc3339(annotation.at_ms),
        data=annotation,
    )
    headers = [("content-type", CLOUDEVENT_JSON.encode())]
    return Envelope(annotation.lane.lane_id.encode(), headers, msgspec.json.encode(event))


def decode_event(value: bytes | None) -> Alert | Annotation:
    """Whichever of the two lies on `interp.alerts`. Raises IntegrityError."""
    if read_json(value, _AnyEvent).type == CE_TYPE:
        return read_json(value, AnnotationEvent).data
    return read_json(value, AlertEvent).data
