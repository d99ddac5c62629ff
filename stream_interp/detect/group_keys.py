"""Do requests of one group (a session, a customer) hang together? Counted with the baseline, by hashed group key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import design_effect
from stream_interp.drift.design_effect import Estimate
from stream_interp.errors import IntegrityError
from stream_interp.records.group_keys import BUCKETS, looked_at
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
    """With the counts of one more window; None as long as no request had a group key.

    Raises:
        IntegrityError: counts that no requests can have; they would stay, and no baseline could be made of them.
    """
    if "group_requests" not in window.arrays:
        return before
    fired = np.zeros((BUCKETS, looked_at(window.header.d_sae)), np.int64)
    requests, cells, of_cell = (window.arrays[f"group_{name}"] for name in ("requests", "cells", "fired"))
    integers = all(np.issubdtype(array.dtype, np.integer) for array in (requests, cells, of_cell))
    if not integers or requests.shape != (BUCKETS,) or cells.ndim != 1 or cells.shape != of_cell.shape:
        raise IntegrityError(f"groups of dtype and shape {_forms(requests, cells, of_cell)}; no window has such")
    fired.reshape(-1)[cells] = of_cell
    n = window.header.requests
    possible = requests.min() >= 0 and requests.max() <= n and requests.sum() <= n
    if not possible or (fired < 0).any() or (fired > requests[:, None]).any():
        raise IntegrityError(f"requests by group beyond the {n} of their window, or below 0")
    requests = requests.astype(np.int64)
    return ByBucket(requests, fired) if before is None else ByBucket(before.requests + requests, before.fired + fired)


def _forms(*arrays: NDArray[np.generic]) -> str:
    return ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays)
