"""What operators have put on `interp.control`: baselines, orders, and what they said of incidents. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.records.alert import Alert, Said
from stream_interp.records.annotation import (
    MAX_BLIND_SILENCE_MS,
    MAX_SILENCE_MS,
    NEVER_LONG_SILENT,
    Annotation,
    make_annotation,
    said_at_ms,
)
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import ControlReader, Manifest, Marker, Order, Versioned, read_order

OWN_AUTHOR = "detect"  # what `step` emits is in effect where it was emitted: it needs no marker


class Operators:
    """All of it, newest last. Bounded by what people write: the topic keeps every version."""

    def __init__(self) -> None:
        self._reader = ControlReader()
        self._baselines: dict[tuple[str, int], Versioned] = {}
        self._orders: dict[tuple[str, str], tuple[Manifest, Order]] = {}  # (kind, lane) → newest order of `step`
        self._acks: dict[str, Said] = {}  # by incident
        self._silences: dict[str, Said] = {}  # by lane, of those not ended the one that lasts longest
        self._annotations: list[tuple[int, Annotation]] = []
        self.next_offset = 0  # of `interp.control`

    def add(self, record: Consumed) -> Versioned | None:
        """Takes one record; what it completed, if that is an operator's.

        Raises:
            IntegrityError: a manifest or an order that cannot be read.
        """
        self.next_offset = record.offset + 1
        try:
            whole = self._reader.add((record.key or b"").decode(), record.value, record.timestamp_ms)
        except UnicodeDecodeError as error:
            raise IntegrityError(f"interp.control offset {record.offset}: its key is not UTF-8 text") from error
        if whole is None or whole.manifest.kind in ("projector", "evidence"):
            return None
        if whole.manifest.kind == "baseline" and whole.manifest.author == OWN_AUTHOR:
            return None
        if whole.manifest.kind == "baseline":
            self._baselines[whole.manifest.lane.lane_id, whole.manifest.version] = whole
        else:
            self._take_order(whole, record)
        return whole

    def find(self, marker: Marker) -> Versioned | None:
        """The baseline that a marker names, if its hash is right."""
        found = self._baselines.get((marker.lane.lane_id, marker.version))
        return found if found is not None and found.manifest.sha256 == marker.sha256 else None

    def newest_baselines(self) -> Iterable[Versioned]:
        """The newest of every lane."""
        newest: dict[str, Versioned] = {}
        for (lane_id, version), whole in self._baselines.items():
            if lane_id not in newest or version > newest[lane_id].manifest.version:
                newest[lane_id] = whole
        return newest.values()

    def step_orders(self) -> Iterable[tuple[Manifest, Order]]:
        """Of every lane the last `resolve`, and the `relearn` and `approve` of the largest version."""
        return self._orders.values()

    def ack_of(self, alert: Alert) -> Said | None:
        """Of the alert's incident. A lane goes blind again and again under one id: each time wants its own ack."""
        ack = self._acks.get(alert.incident_id)
        if ack is None or (alert.transition in NEVER_LONG_SILENT and ack.at_ms < alert.at_ms):
            return None
        return ack

    def silence_of(self, lane_id: str, now_ms: int) -> Said | None:
        """The silence of a lane that is in force."""
        silence = self._silences.get(lane_id)
        return silence if silence is not None and now_ms < silence.until_ms else None

    def silence_on(self, alert: Alert, now_ms: int) -> Said | None:
        """The silence that covers an alert: `blind` and `integrity_error` for a day only."""
        silence = self.silence_of(alert.lane.lane_id, now_ms)
        if silence is None or alert.transition not in NEVER_LONG_SILENT:
            return silence
        until_ms = min(silence.until_ms, silence.at_ms + MAX_BLIND_SILENCE_MS)
        return structs.replace(silence, until_ms=until_ms) if now_ms < until_ms else None

    def annotations_from(self, offset: int) -> list[Annotation]:
        """Those whose record lies at `offset` on `interp.control`, or after it."""
        first = bisect_left(self._annotations, offset, key=lambda entry: entry[0])
        return [annotation for _, annotation in self._annotations[first:]]

    def _take_order(self, whole: Versioned, record: Consumed) -> None:
        order, manifest = read_order(whole), whole.manifest
        lane_id, at_ms = order.lane.lane_id, said_at_ms(order, record.timestamp_ms)
        said = Said(author=manifest.author, reason=manifest.reason, at_ms=at_ms, until_ms=order.until_ms)
        if order.kind in ("resolve", "relearn", "approve"):
            held = self._orders.get((order.kind, lane_id))
            if held is None or order.kind == "resolve" or order.version > held[1].version:  # as ENCODE has it
                self._orders[order.kind, lane_id] = (manifest, order)
            return
        if order.kind == "ack":
            self._acks[order.incident_id] = said
        elif order.kind == "unsilence":
            self._silences.pop(lane_id, None)
        else:
            silence = structs.replace(said, until_ms=min(order.until_ms, at_ms + MAX_SILENCE_MS))
            self._silences[lane_id] = max(silence, self._silences.get(lane_id, silence), key=lambda s: s.until_ms)
        self._annotations.append((record.offset, make_annotation(whole, order, record.timestamp_ms)))
