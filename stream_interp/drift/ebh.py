"""Which of many dependent streams to name: e-d-BH over the statistics of e-detectors at one tick.

For M_i with E[M_i at τ] ≤ E[τ] under the null of stream i, at every stopping time τ of the log that all streams share
(`esr.value`), K streams and α a week:

    e-d-BH:          the k* largest, k* = max{k : k·M₍ₖ₎/K ≥ 1/α};  false share FDP:  E[FDP at τ] ≤ α·E[τ]
    e-d-Bonferroni:  all with M_i ≥ K/α;                              false ones:      E[number at τ] ≤ α·E[τ]

whatever the dependence between streams. This is error over patience, no control of the FDR for ever: no rule that ever
errs has that. It also holds for the union of all sets so far (a latch): a null stream named first at s with k*(s) more
has 1 ≤ α·k*(s)·M(s)/K, and k*(s) is at most the size of the union, so that FDP ≤ α/K·Σ M_i(min(s_i, τ)) over null
streams. A stream that starts afresh when it is named keeps both. Source: arXiv 2501.04130; the latch is ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift.esr import Floats


def e_d_bh(values: Floats, alpha: float) -> NDArray[np.intp]:
    """The named streams, ascending; equal values are named together or not at all.

    Args:
        values: [K] statistics, weeks, not NaN; K counts every stream that is watched.
        alpha: > 0, expected false share a week.
    """
    if not (streams := len(values)):
        return np.zeros(0, np.intp)
    able = np.flatnonzero(streams * values >= streams / alpha)  # k ≤ K: none below can be named
    falling = able[np.argsort(-values[able])]
    enough = np.arange(1, len(falling) + 1) * values[falling] >= streams / alpha
    return np.sort(falling[: enough.nonzero()[0].max(initial=-1) + 1])
