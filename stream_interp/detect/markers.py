"""Markers that are due: what operators or silence ask of a lane takes effect where its marker lies in the log. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from stream_interp.detect.orders import can_be_approved, open_incident_id, shape_version, supersedes
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.errors import IntegrityError
from stream_interp.records.control import Manifest, Marker, Order, Versioned, read_baseline
from stream_interp.settings import DriftSettings, Settings


class LaneWatch:
    """What the shell remembers of the lanes of one partition between polls.

    Args:
        since_s: monotonic time of the assignment: silence before it is not ours to judge.
    """

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s
        self._window_s: dict[str, float] = {}
        self._looked_at: dict[str, int] = {}  # lane → newest baseline that has its marker or needs none
        self._relearned: dict[str, int] = {}  # lane → newest order to learn again with a marker
        self._approved: dict[str, int] = {}  # lane → newest approval with a marker
        self._resolved: set[str] = set()  # incidents whose end has a marker
        self._blind_at: dict[str, int] = {}  # lane → its position when `blind` was written

    def saw_window(self, lane_id: str, now_s: float) -> None:
        """A window of the lane has come."""
        self._window_s[lane_id] = now_s

    def baseline_marker(self, state: LaneState | None, newest: Versioned, drift: DriftSettings) -> Marker | None:
        """The marker that brings the newest baseline into effect, once; None where it is in effect or marked."""
        manifest = newest.manifest
        lane_id = manifest.lane.lane_id
        if manifest.version <= self._looked_at.get(lane_id, -1):
            return None
        self._looked_at[lane_id] = manifest.version  # what is in effect only grows newer: once void, void for ever
        projector_version = _projector_version(newest)
        if state is not None and not supersedes(state, manifest.version, projector_version):
            return None
        return Marker(
            kind="baseline", lane=manifest.lane, version=manifest.version, sha256=manifest.sha256, drift=drift,
            projector_version=projector_version,
        )  # fmt: skip

    def order_marker(self, state: LaneState, manifest: Manifest, order: Order, settings: Settings) -> Marker | None:
        """The marker of an order that changes `step`, once; None where there is nothing left for it to do."""
        marker = Marker(
            kind="resolve", lane=order.lane, version=order.version, incident_id=order.incident_id,
            author=manifest.author, reason=manifest.reason,
        )  # fmt: skip
        if order.kind == "resolve":
            if order.incident_id in self._resolved or order.incident_id != open_incident_id(state):
                return None
            self._resolved.add(order.incident_id)
            return marker
        lane_id = order.lane.lane_id
        if order.kind == "approve":
            if order.version <= self._approved.get(lane_id, -1) or not can_be_approved(state, order.baseline_version):
                return None
            self._approved[lane_id] = order.version
            return structs.replace(marker, kind="approve", baseline_version=order.baseline_version)
        if order.version <= max(shape_version(state), self._relearned.get(lane_id, -1)):
            return None
        self._relearned[lane_id] = order.version
        drift, requests, unit = settings.drift, settings.baseline.requests, settings.unit
        return structs.replace(marker, kind="relearn", drift=drift, baseline_requests=requests, unit=unit)

    def blind_markers(
        self, partition: WindowsPartition, settings: Settings, now_s: float, now_ms: int
    ) -> Iterator[Marker]:
        """For lanes that have been silent too long, once per silence."""
        for lane_id, state in partition.lanes.items():
            silent_s = now_s - self._window_s.get(lane_id, self._since_s)
            offset = state.position.offset
            if state.blind or not state.closed_at_ms or silent_s < settings.status.blind_after_s:
                continue
            if self._blind_at.get(lane_id) == offset or _may_be_idle(state, settings):
                continue
            self._blind_at[lane_id] = offset
            yield Marker(kind="blind", lane=state.lane, at_ms=now_ms, after_position=offset)


def _may_be_idle(state: LaneState, settings: Settings) -> bool:
    lane = state.lane
    site = settings.site_of(
        tenant=lane.tenant, model_id=lane.model_id, model_revision=lane.model_revision, hook_name=lane.hook_name
    )
    return site is not None and site.idle_ok


def _projector_version(baseline: Versioned) -> int:
    """One that cannot be read gets a marker all the same: where that is applied, the lane says so."""
    try:
        return read_baseline(baseline)[0].projector_version
    except IntegrityError:
        return baseline.manifest.version
