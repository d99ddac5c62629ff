"""Flap damping: the same story of a lane that opens, ends and opens again and again. Pure."""

from __future__ import annotations

from collections import deque


class Flaps:
    """Counts openings by lane and cause.

    Args:
        limit: so many within the window are told.
        window_ms: after the last opening beyond it, the story is calm again.
    """

    def __init__(self, limit: int, window_ms: int) -> None:
        self._limit, self._window_ms = limit, window_ms
        self._began: dict[tuple[str, str], deque[int]] = {}
        self._open: set[tuple[str, str]] = set()

    def began(self, lane_id: str, cause: str, at_ms: int) -> None:
        """An opening; it counts if nothing of the kind was open. More than `limit` + 1 need not be remembered."""
        if (lane_id, cause) not in self._open:
            self._open.add((lane_id, cause))
            self._began.setdefault((lane_id, cause), deque(maxlen=self._limit + 1)).append(at_ms)

    def ended(self, lane_id: str, cause: str) -> None:
        """An end."""
        self._open.discard((lane_id, cause))

    def openings(self, lane_id: str, cause: str, now_ms: int) -> int:
        """Within the window that ends now; at most `limit` + 1."""
        return sum(at_ms > now_ms - self._window_ms for at_ms in self._began.get((lane_id, cause), ()))

    def is_flapping(self, lane_id: str, cause: str, now_ms: int) -> bool:
        """More openings than are told."""
        return self.openings(lane_id, cause, now_ms) > self._limit
