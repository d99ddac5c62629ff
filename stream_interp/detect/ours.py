"""The partitions that are ours: their lanes, and what the shell is to write for them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from typing import NamedTuple

from stream_interp.detect.checkpoint import Checkpoints
from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.operators import Operators
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.records.annotation import Annotation
from stream_interp.records.control import Marker
from stream_interp.settings import Settings


class Owned(NamedTuple):
    """A partition of ours."""

    windows: WindowsPartition
    checkpoints: Checkpoints
    watch: LaneWatch


class Ours:
    """All of them, by number.

    Args:
        settings: of all processes.
        operators: what they want.
        partition_of: the windows partition of a lane id.
    """

    def __init__(self, settings: Settings, operators: Operators, partition_of: Callable[[str], int]) -> None:
        self.partitions = dict[int, Owned]()
        self._settings, self._operators, self._partition_of = settings, operators, partition_of

    @property
    def caught_up(self) -> dict[int, Owned]:
        """Those whose lanes are what they were before a restart."""
        return {p: owned for p, owned in self.partitions.items() if owned.windows.caught_up}

    @property
    def counters(self) -> Counter[str]:
        """Of all together."""
        return sum((owned.windows.counters for owned in self.partitions.values()), Counter[str]())

    def lane(self, lane_id: str) -> LaneState | None:
        """A lane of ours."""
        owned = self.partitions.get(self._partition_of(lane_id))
        return owned.windows.lanes.get(lane_id) if owned is not None else None

    def due_annotations(self) -> list[Annotation]:
        """Acks and silences that were not told yet."""
        return [
            annotation
            for p, owned in self.caught_up.items()
            for annotation in self._operators.annotations_from(owned.windows.annotated)
            if self._partition_of(annotation.lane.lane_id) == p
        ]

    def due_markers(self, at_end: Container[int], now_s: float, now_ms: int) -> list[tuple[int, Marker]]:
        """Of partitions read to their end: before it, a marker may already lie there."""
        due = list[tuple[int, Marker | None]]()
        ready = {p: owned for p, owned in self.caught_up.items() if p in at_end}
        for newest in self._operators.newest_baselines():
            lane_id = newest.manifest.lane.lane_id
            if (p := self._partition_of(lane_id)) in ready:
                marker = ready[p].watch.baseline_marker(self.lane(lane_id), newest, self._settings.drift)
                due.append((p, marker))
        for manifest, order in self._operators.step_orders():
            p, state = self._partition_of(order.lane.lane_id), self.lane(order.lane.lane_id)
            if p in ready and state is not None:
                due.append((p, ready[p].watch.order_marker(state, manifest, order, self._settings)))
        for p, owned in ready.items():
            due += [(p, m) for m in owned.watch.blind_markers(owned.windows, self._settings, now_s, now_ms)]
        return [(p, marker) for p, marker in due if marker is not None]
