"""Collecting the story of an incident from the topics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from msgspec import structs

from stream_interp.detect.alerts import incident_id as id_of
from stream_interp.errors import IntegrityError, UsageError
from stream_interp.evidence.story import Story
from stream_interp.kafka.control import read_controls
from stream_interp.kafka.latest import read_latest
from stream_interp.kafka.range import log_range, read_between, read_range
from stream_interp.records.alert import Alert, AlertState
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.records.checkpoint import Checkpoint, copy_manifests, incident_checkpoint, is_copy
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import MARKER_TYPE, Marker, Versioned, read_baseline, read_order
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import header_map, read_json
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings

MAX_BYTES = 1024**3  # of windows, in memory
_ROOM_MS = 600_000  # between the clocks of the broker, which dates windows, and of ENCODE and DETECT
_SHOWN = 10
_CUT = re.compile(r"@(.+)/(\d+)\[\d+,(\d+)\)$")  # the end of a window's id
_ORDERS = ("ack", "silence", "unsilence", "resolve", "relearn", "approve")


def collect(kafka: KafkaSettings, incident_id: str, max_bytes: int = MAX_BYTES) -> Story:
    """The story of an incident from the checkpoint before its change to its end, or to what DETECT has told so far.

    Args:
        kafka: where.
        incident_id: whose; an incident of drift, opened by a DETECT that copies checkpoints.
        max_bytes: of windows; where there are more, the story ends earlier and says so.

    Raises:
        UsageError: no such incident, or one that is no drift.
        IntegrityError: its windows have expired, or there is no checkpoint to replay them from.
        DependencyUnreachable: Kafka does not answer.
    """
    last = _last_word(kafka, incident_id)
    statuses = read_latest(kafka, "interp.status", Status)  # before the rest: what it vouches for has been told
    checkpoint = _checkpoint(kafka, last)
    status = statuses.get(last.lane.lane_id)
    told = status.position.offset if status is not None else last.position.offset
    end = last.position.offset if last.transition == "resolved" else max(told, last.position.offset)
    _require_windows(kafka, checkpoint)
    records, end, complete = _bounded(_records_of(kafka, checkpoint, end), end, max_bytes)
    since_ms = records[0].timestamp_ms if records else last.at_ms
    until_ms = records[-1].timestamp_ms if records else last.at_ms
    alerts, annotations = _said(kafka, last, since_ms, checkpoint.manifest.covered.offset, end)
    controls, orders = _controls(kafka, last, records, alerts, since_ms)
    return Story(
        incident_id=incident_id, checkpoint=checkpoint, records=records, alerts=alerts, annotations=annotations,
        controls=controls, orders=orders, cuts=_cuts(kafka, records, since_ms, until_ms), end=end, complete=complete,
    )  # fmt: skip


def _last_word(kafka: KafkaSettings, incident_id: str) -> AlertState:
    states = read_latest(kafka, "interp.alert-state", AlertState)
    if incident_id not in states:
        unresolved = [s for s in states.values() if s.transition in ("opened", "updated", "escalated")]
        newest = sorted(unresolved, key=lambda s: -s.at_ms)[:_SHOWN]
        names = ", ".join(f"{s.incident_id} ({s.lane.model_id}/{s.lane.hook_name} {s.severity})" for s in newest)
        raise UsageError(f"no incident {incident_id}; open ones: {names or 'none'}. `alerts list` shows all")
    return states[incident_id]


def _checkpoint(kafka: KafkaSettings, last: Alert) -> Checkpoint:
    """The copy that was made when the incident opened."""
    lane_id, values = last.lane.lane_id, dict[str, bytes]()
    for record in read_range(kafka, "interp.state", last.position.partition):
        key = (record.key or b"").decode(errors="replace")
        if is_copy(key) and key.startswith(f"{lane_id}/"):
            values[key] = record.value or b""
    for manifest in copy_manifests(values):
        if id_of(last.lane, manifest.incident) == last.incident_id:
            if found := incident_checkpoint(lane_id, manifest.incident, values):
                return found
            raise IntegrityError(f"the checkpoint of incident {last.incident_id} on interp.state is not whole")
    if last.transition not in ("opened", "updated", "escalated", "resolved"):
        raise UsageError(f"{last.incident_id} is {last.cause_hint}, not an incident of drift: nothing to replay")
    raise IntegrityError(
        f"incident {last.incident_id}: no checkpoint to replay it from. It opened under a version that copied none, or "
        "its windows have expired since; `stream-interp alerts show` tells what is left of it"
    )


def _require_windows(kafka: KafkaSettings, checkpoint: Checkpoint) -> None:
    partition, first = checkpoint.manifest.covered.partition, checkpoint.manifest.read_from
    low = log_range(kafka, "interp.windows", partition).low
    if low > first:
        raise IntegrityError(
            f"windows from offset {first} of interp.windows/{partition} are needed, but the log begins at {low}: they "
            "have expired; raise the topic's retention.ms for the next time"
        )


def _records_of(kafka: KafkaSettings, checkpoint: Checkpoint, end: int) -> Iterator[Consumed]:
    manifest = checkpoint.manifest
    for record in read_range(kafka, "interp.windows", manifest.covered.partition, manifest.read_from):
        if record.offset > end:
            return
        if record.key == manifest.lane.lane_id.encode():
            yield record


def _bounded(records: Iterable[Consumed], end: int, max_bytes: int) -> tuple[tuple[Consumed, ...], int, bool]:
    """The records that fit, the offset that they reach, and whether that is all of them."""
    kept, size = list[Consumed](), 0
    for record in records:
        size += len(record.value or b"")
        if size > max_bytes and kept:
            return tuple(kept), kept[-1].offset, False
        kept.append(record)
    return tuple(kept), end, True


def _said(
    kafka: KafkaSettings, last: Alert, since_ms: int, covered: int, end: int
) -> tuple[tuple[Alert, ...], tuple[Annotation, ...]]:
    """The lane's transitions in the range, and what operators said of the incident and the lane."""
    events = [
        decode_event(record.value)
        for record in read_between(kafka, "interp.alerts", since_ms - _ROOM_MS)
        if record.key == last.lane.lane_id.encode()
    ]
    alerts = [e for e in events if isinstance(e, Alert) and covered < e.position.offset <= end]
    said = [e for e in events if isinstance(e, Annotation) and e.incident_id in ("", last.incident_id)]
    return tuple(alerts), tuple(said)


def _controls(
    kafka: KafkaSettings, last: Alert, records: Sequence[Consumed], alerts: Sequence[Alert], since_ms: int
) -> tuple[tuple[Versioned, ...], tuple[Versioned, ...]]:
    """Baselines that markers and transitions name, with their projectors, and the orders since the range began."""
    own = [c for c in read_controls(kafka) if c.manifest.lane == last.lane]
    named = {marker.version for marker in _markers(records)} | {alert.baseline_version for alert in alerts}
    baselines = [c for c in own if c.manifest.kind == "baseline" and c.manifest.version in named]
    shapes = {read_baseline(c)[0].projector_version for c in baselines}
    projectors = [c for c in own if c.manifest.kind == "projector" and c.manifest.version in shapes]
    orders = [c for c in own if c.manifest.kind in _ORDERS and c.manifest.version >= since_ms - _ROOM_MS]
    return (*projectors, *baselines), tuple(c for c in orders if _incident_of(c) in ("", last.incident_id))


def _incident_of(order: Versioned) -> str | None:
    """None where the order cannot be read: DETECT did not follow it."""
    try:
        return read_order(order).incident_id
    except IntegrityError:
        return None


def _markers(records: Iterable[Consumed]) -> Iterator[Marker]:
    """Those that can be read: what DETECT could not use, the replay cannot either."""
    for record in records:
        if _headers(record).get("ce_type") == MARKER_TYPE:
            with suppress(IntegrityError):
                yield read_json(record.value, Marker)


def _headers(record: Consumed) -> dict[str, str]:
    try:
        return header_map(record.headers)
    except UnicodeDecodeError:
        return {}


def _cuts(kafka: KafkaSettings, records: Iterable[Consumed], since_ms: int, until_ms: int) -> tuple[Cut, ...]:
    """The account of the cuts that hold the windows; of other lanes, and of single requests, nothing."""
    ids = (_headers(record).get("ce_window", "") for record in records)
    wanted = {(m[1], int(m[2]), int(m[3])) for m in map(_CUT.search, ids) if m}
    lane_ids = {(record.key or b"").decode(errors="replace") for record in records}
    found = dict[tuple[str, int, int], Cut]()
    for record in read_between(kafka, "interp.cuts", since_ms - _ROOM_MS, until_ms + _ROOM_MS):
        cut = read_json(record.value, Cut)
        if (place := (cut.topic, cut.partition, cut.b)) in wanted:
            lanes = {lane_id: count for lane_id, count in cut.lanes.items() if lane_id in lane_ids}
            found[place] = structs.replace(cut, lanes=lanes, open={}, dropped={})
    return tuple(found[place] for place in sorted(found))
