"""What lies on `interp.control`, without its bodies: baselines and projectors, orders, hashes of evidence."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from stream_interp.errors import IntegrityError
from stream_interp.records.control import (
    BaselineHeader,
    ControlReader,
    Manifest,
    Versioned,
    read_baseline,
    read_evidence_root,
    read_order,
)
from stream_interp.records.lane import Lane
from stream_interp.ui.model.bounds import put, sane

MAX_BASELINES = 100  # newest of one lane
MAX_ORDERS = 100
MAX_ROOTS = 1_000  # newest of all lanes

_ORDERS = frozenset({"ack", "silence", "unsilence", "resolve", "relearn", "approve"})


class BaselineVersion(Struct, frozen=True, kw_only=True):
    """One baseline: who made it, why, and what it stands on."""

    manifest: Manifest
    header: BaselineHeader


class OrderRow(Struct, frozen=True, kw_only=True):
    """What an operator asked of a lane, as claimed."""

    kind: str
    lane: Lane
    incident_id: str
    author: str
    reason: str
    at_ms: int
    until_ms: int


class Versions:
    """Fed with the records of `interp.control` in their order."""

    def __init__(self) -> None:
        self._reader = ControlReader()
        self.lanes: dict[str, Lane] = {}
        self.baselines: dict[str, dict[int, BaselineVersion]] = {}
        self.orders: dict[str, deque[OrderRow]] = {}
        self.evidence_roots: dict[str, str] = {}  # incident → root hash of its newest pack

    def take(self, key: str, value: bytes | None, logged_ms: int | None = None) -> None:
        """One record, and when the log took it. Raises IntegrityError."""
        record = self._reader.add(key, value, logged_ms)
        if record is None:
            return
        manifest = record.manifest
        put(self.lanes, manifest.lane.lane_id, sane(manifest.lane))
        if manifest.kind == "baseline":
            self._take_baseline(record)
        elif manifest.kind in _ORDERS:
            self._take_order(record)
        elif manifest.kind == "evidence":
            root = read_evidence_root(record)
            self.evidence_roots[root.incident_id] = root.root_sha256
            if len(self.evidence_roots) > MAX_ROOTS:
                del self.evidence_roots[next(iter(self.evidence_roots))]

    def baseline(self, lane: Lane, version: int) -> BaselineVersion | None:
        """One version of a lane."""
        return self.baselines.get(lane.lane_id, {}).get(version)

    def _take_baseline(self, record: Versioned) -> None:
        header, _ = read_baseline(record)
        lane_id = record.manifest.lane.lane_id
        versions = self.baselines.get(lane_id, {})
        put(self.baselines, lane_id, versions)
        versions[record.manifest.version] = BaselineVersion(manifest=record.manifest, header=header)
        if len(versions) > MAX_BASELINES:
            del versions[min(versions)]

    def _take_order(self, record: Versioned) -> None:
        manifest, order = record.manifest, read_order(record)
        if order.lane != manifest.lane:
            raise IntegrityError(f"{manifest.key}: its order is for another lane than its manifest")
        rows = self.orders.get(order.lane.lane_id, deque[OrderRow](maxlen=MAX_ORDERS))
        put(self.orders, order.lane.lane_id, rows)
        rows.append(
            OrderRow(
                kind=order.kind,
                lane=order.lane,
                incident_id=order.incident_id,
                author=manifest.author,
                reason=manifest.reason,
                at_ms=manifest.version,
                until_ms=order.until_ms,
            )
        )
