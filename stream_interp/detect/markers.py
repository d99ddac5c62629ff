"""Markers that are due: what operators or silence ask of a lane takes effect where its marker lies in the log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.errors import IntegrityError
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import ControlReader, Marker, Versioned
from stream_interp.settings import DriftSettings, Settings

OWN_AUTHOR = "detect"  # what `step` emits is in effect where it was emitted: it needs no marker


class Baselines:
    """Operators' baselines as they lie on `interp.control`."""

    def __init__(self) -> None:
        self._reader = ControlReader()
        self._whole: dict[tuple[str, int], Versioned] = {}

    def add(self, record: Consumed) -> Versioned | None:
        """Takes one record; the operator's baseline that it completed, if any.

        Raises:
            IntegrityError: a manifest that cannot be read.
        """
        try:
            whole = self._reader.add((record.key or b"").decode(), record.value)
        except UnicodeDecodeError as error:
            raise IntegrityError(f"interp.control offset {record.offset}: its key is not UTF-8 text") from error
        if whole is None or whole.manifest.kind != "baseline" or whole.manifest.author == OWN_AUTHOR:
            return None
        self._whole[whole.manifest.lane.lane_id, whole.manifest.version] = whole
        return whole

    def find(self, marker: Marker) -> Versioned | None:
        """The one that a marker names, if its hash is right."""
        found = self._whole.get((marker.lane.lane_id, marker.version))
        return found if found is not None and found.manifest.sha256 == marker.sha256 else None

    def newest(self) -> Iterable[Versioned]:
        """The newest of every lane."""
        newest: dict[str, Versioned] = {}
        for (lane_id, version), whole in self._whole.items():
            if lane_id not in newest or version > newest[lane_id].manifest.version:
                newest[lane_id] = whole
        return newest.values()


class LaneWatch:
    """What the shell remembers of the lanes of one partition between polls.

    Args:
        since_s: monotonic time of the assignment: silence before it is not ours to judge.
    """

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s
        self._window_s: dict[str, float] = {}
        self._marked: dict[str, int] = {}  # lane → newest baseline with a marker
        self._blind_at: dict[str, int] = {}  # lane → its position when `blind` was written

    def saw_window(self, lane_id: str, now_s: float) -> None:
        """A window of the lane has come."""
        self._window_s[lane_id] = now_s

    def baseline_marker(self, state: LaneState | None, newest: Versioned, drift: DriftSettings) -> Marker | None:
        """The marker that brings the newest baseline into effect, once; None where it is in effect or marked."""
        manifest = newest.manifest
        lane_id = manifest.lane.lane_id
        in_effect = state.baseline.header.version if state is not None and state.baseline is not None else -1
        if manifest.version <= max(in_effect, self._marked.get(lane_id, -1)):
            return None
        self._marked[lane_id] = manifest.version
        return Marker(
            kind="baseline", lane=manifest.lane, version=manifest.version, sha256=manifest.sha256, drift=drift
        )

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
