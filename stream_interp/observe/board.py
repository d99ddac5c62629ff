"""Where a process shows itself: written by its own thread alone, read whole by the HTTP server's. No locks.

A process keeps one `Board` and calls `turn` once in each turn of its loop; that is all a process needs to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stream_interp.records.status import Status

PUBLISH_EVERY_S = 1.0
LIVE_WITHIN_S = 120.0  # longer than a turn that waits for a broker's restart, shorter than max.poll.interval.ms

SAE_LOADED, ASSIGNMENT_RECEIVED, STATE_RESTORED = "sae_loaded", "assignment_received", "state_restored"


class Distribution(NamedTuple):
    """Values counted by size: `counts[k]` of those ≤ `bounds[k]` and above the bound before, the rest last.

    Attributes:
        bounds: ascending.
        counts: one more than bounds.
        total: sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Reading(NamedTuple):
    """One value of a metric of `catalogue.METRICS`, with the values of its labels in the order there."""

    metric: str
    value: float | Distribution
    labels: tuple[str, ...] = ()


def input_readings(topic: str, lags: Mapping[int, int | None]) -> tuple[Reading, ...]:
    """Partitions of the input topic that a process holds, and how far behind it is in each (None: not known)."""
    known = ((str(p), lag) for p, lag in lags.items() if lag is not None)
    lag_readings = (Reading("consumer_lag_records", lag, (topic, partition)) for partition, lag in known)
    return Reading("partitions_assigned", len(lags)), *lag_readings


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A process as it is now; never changed after it was published.

    Attributes:
        missing: conditions of readiness that do not hold, such as `state_restored`; empty: ready.
        readings: what it counts and holds.
        statuses: of the lanes that it owns (DETECT).
    """

    missing: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    statuses: tuple[Status, ...] = ()


class Board:
    """What others may see of one process.

    Args:
        process: `encode`, `detect`, `notify` or `ui`; unique in its operating-system process.
        missing: conditions of readiness, none of which holds yet.
    """

    def __init__(self, process: str, missing: Sequence[str] = ()) -> None:
        self.process = process
        self.turned_s: float | None = None  # monotonic; None: its loop has not begun
        self.snapshot = Snapshot(missing=tuple(missing))
        self._due_s = 0.0

    def turn(self, describe: Callable[[], Snapshot]) -> None:
        """The loop turned. Once a second `describe` is called and what it returns is shown."""
        now_s = self.turned_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + PUBLISH_EVERY_S
            self.snapshot = describe()

    def alive(self) -> None:
        """Inside a long turn, such as one that restores many lanes: it goes on."""
        self.turned_s = time.monotonic()

    def now_missing(self, *missing: str) -> None:
        """Before the loop begins: what is not there yet."""
        self.snapshot = Snapshot(missing=missing)

    def silent_for_s(self, now_s: float) -> float:
        """Seconds since its loop last turned, at monotonic `now_s`; 0 before it begins."""
        return 0.0 if self.turned_s is None else max(0.0, now_s - self.turned_s)

    def is_live(self, now_s: float) -> bool:
        """Its loop turned not long ago, or has not begun yet (then it is not ready either)."""
        return self.silent_for_s(now_s) < LIVE_WITHIN_S
