"""Do requests of one group (a session, a customer) hang together? Counted with the baseline, by hashed group key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import design_effect
from stream_interp.drift.design_effect import Estimate
from stream_interp.records.groups import BUCKETS, looked_at
from stream_interp.records.window import Window


@dataclass(frozen=True)
class ByBucket:
    """Requests [BUCKETS] that have a group, and [BUCKETS, features looked at] those that each feature fired in."""

    requests: NDArray[np.int64]
    fired: NDArray[np.int64]

    def estimate(self) -> Estimate:
        """The design effect of groups."""
        return design_effect.estimate(design_effect.of_buckets(self.requests, self.fired))


def groups_after(before: ByBucket | None, window: Window) -> ByBucket | None:
    """With the counts of one more window; None as long as no request had a group key."""
    if "group_requests" not in window.arrays:
        return before
    fired = np.zeros((BUCKETS, looked_at(window.header.d_sae)), np.int64)
    fired.reshape(-1)[window.arrays["group_cells"]] = window.arrays["group_fired"]
    requests = window.arrays["group_requests"]
    return ByBucket(requests, fired) if before is None else ByBucket(before.requests + requests, before.fired + fired)
