"""The length histogram: exact up to 32 tokens, then 16 bins an octave, so that a percentile is off by ≤ 5 %."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EXACT = 32
_PER_OCTAVE = 16
EDGES: NDArray[np.int64] = np.unique(  # EDGES[i] is the shortest length in bin i
    np.concatenate(
        [np.arange(_EXACT), np.floor(_EXACT * 2 ** (np.arange(15 * _PER_OCTAVE) / _PER_OCTAVE)).astype(np.int64)]
    )
)
BINS = len(EDGES)


def length_bins(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bins of requests with so many counted tokens."""
    return np.searchsorted(EDGES, tokens, side="right").astype(np.int64) - 1


def percentile(histogram: NDArray[np.int64], share: float) -> int:
    """The shortest length of the bin in which the given share of requests is reached; at least 1."""
    reached = np.searchsorted(np.cumsum(histogram), share * histogram.sum(), side="right")
    return max(1, int(EDGES[min(int(reached), BINS - 1)]))
