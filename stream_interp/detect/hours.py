"""What a lane learns of the hours of the week: for rates that follow a known rhythm."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream_interp.records.arrays import Arrays
from stream_interp.records.window import Window

HOURS = 7 * 24
_HOUR_MS = 3_600_000
_EPOCH_HOUR = 3 * 24  # 1970 began on a Thursday


@dataclass(frozen=True)
class Hours:
    """Traffic and firings by hour of the week, [HOURS].

    Attributes:
        requests: counted.
        fired: Σ over features of requests_fired.
    """

    requests: NDArray[np.int64] = field(default_factory=lambda: np.zeros(HOURS, np.int64))
    fired: NDArray[np.float64] = field(default_factory=lambda: np.zeros(HOURS))

    def after(self, window: Window, at_ms: int) -> Hours:
        """With one more window, of that time."""
        hour = hour_of_week(at_ms)
        requests, fired = self.requests.copy(), self.fired.copy()
        requests[hour] += len(window.arrays["request_scores"])  # the header may claim any number
        fired[hour] += window.arrays["requests_fired"].sum()
        return Hours(requests, fired)

    def frozen(self) -> Arrays:
        """For a baseline. Of a single hour, as in one that is built from a file, there is nothing to say."""
        if np.count_nonzero(self.requests) < 2:
            return {}
        return {"hour_requests": self.requests, "hour_fired": self.fired}


def hour_of_week(at_ms: int) -> int:
    """0…167 of a Unix epoch time in ms, UTC; Monday 0h is 0."""
    return (at_ms // _HOUR_MS + _EPOCH_HOUR) % HOURS
