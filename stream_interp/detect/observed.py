"""What DETECT shows of itself. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import get_args

from stream_interp.detect.outgoing import Outgoing
from stream_interp.observe.board import ASSIGNMENT_RECEIVED, STATE_RESTORED, Board, Reading, Snapshot
from stream_interp.records.alert import Severity, Transition
from stream_interp.records.status import Status

_COUNTERS = {
    "records": "records", "requests": "requests", "windows": "windows_ticked",
    "unreadable_records": "unreadable_records", "aborted": "transactions_aborted",
}  # fmt: skip
_ALERTS = list(product(get_args(Transition), get_args(Severity)))  # all from zero, so that a first one is a rise


def detect_board() -> Board:
    """Of a process that has not begun."""
    return Board("detect", [ASSIGNMENT_RECEIVED, STATE_RESTORED])


@dataclass
class Shown:
    """What the transactions of a DETECT process have told so far.

    Attributes:
        statuses: the last one of each lane that is ours.
        alerts: by transition and severity.
        saved_at_ms: when the lanes' states were last saved; 0: not yet.
    """

    statuses: dict[str, Status] = field(default_factory=dict)
    alerts: Counter[tuple[str, str]] = field(default_factory=lambda: Counter(dict.fromkeys(_ALERTS, 0)))
    saved_at_ms: int = 0

    def committed(self, out: Outgoing, saved_at_ms: int = 0) -> None:
        """A transaction; `saved_at_ms` if it saved the lanes' states."""
        self.statuses |= {status.lane.lane_id: status for status in out.statuses}
        self.alerts.update((alert.transition, alert.severity) for alert in out.told.alerts)
        self.saved_at_ms = saved_at_ms or self.saved_at_ms

    def forget(self, lane_ids: Iterable[str]) -> None:
        """Lanes that are another's now."""
        for lane_id in lane_ids:
            self.statuses.pop(lane_id, None)

    def snapshot(
        self, counters: Mapping[str, int], further: Iterable[Reading], *, assigned: bool, restored: bool
    ) -> Snapshot:
        """For the board."""
        holds = {ASSIGNMENT_RECEIVED: assigned, STATE_RESTORED: assigned and restored}
        saved = [Reading("last_checkpoint_timestamp_seconds", self.saved_at_ms / 1000)] if self.saved_at_ms else []
        return Snapshot(
            missing=tuple(name for name, met in holds.items() if not met),
            readings=(
                *(Reading(metric, counters.get(name, 0)) for name, metric in _COUNTERS.items()),
                *(Reading("alerts", n, labels) for labels, n in self.alerts.items()),
                *saved,
                *further,
            ),
            statuses=tuple(self.statuses.values()),
        )
