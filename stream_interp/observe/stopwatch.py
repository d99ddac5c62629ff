"""Seconds spent, by phase of a loop."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from stream_interp.observe.board import Reading


class Stopwatch:
    """Adds up monotonic time. `busy_s`: seconds so far, by phase; a phase may lie inside another."""

    def __init__(self) -> None:
        self.busy_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """The block's time counts for the phase."""
        before_s = time.monotonic()
        try:
            yield
        finally:
            self.busy_s[phase] += time.monotonic() - before_s

    def readings(self) -> tuple[Reading, ...]:
        """As metrics."""
        return tuple(Reading("busy_seconds", seconds, (phase,)) for phase, seconds in self.busy_s.items())
