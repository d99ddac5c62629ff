"""How requests are distributed: over lengths, over the positions of their first token, and over segments.

All three are counts by bin [BINS]. Bins of segments are those of the baseline, in the order of their names, then the
requests that name no segment, then those of a segment that the baseline does not know, or not by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader
from stream_interp.records.lengths import BINS
from stream_interp.records.segments import MANY
from stream_interp.records.window import Window

LENGTH, START, SEGMENT = "length", "start", "segment"
OF = (LENGTH, START, SEGMENT)
HISTOGRAMS = {LENGTH: "length_histogram", START: "start_histogram"}

Mix = dict[str, NDArray[np.int64]]  # by OF


def known_segments(baseline: BaselineHeader) -> tuple[str, ...]:
    """Those that there are tests of."""
    return tuple(sorted(baseline.segments.keys() - {MANY}))


def of_baseline(baseline: BaselineHeader, arrays: Arrays) -> Mix:
    """Of the requests of calibration."""
    return _mix(arrays, baseline.segments, known_segments(baseline))


def of_window(window: Window, known: Sequence[str]) -> Mix:
    """Of a window's requests, too short ones, too; `known`: of `known_segments`."""
    return _mix(window.arrays, window.header.segments, known)


def _mix(arrays: Arrays, segments: Mapping[str, int] | None, known: Sequence[str]) -> Mix:
    """Zeros for what is not known: of before it was counted."""
    none = np.zeros(BINS, np.int64)
    mix = {of: arrays.get(name, none) for of, name in HISTOGRAMS.items()}
    if not known or segments is None:
        return {**mix, SEGMENT: none}
    own = [segments.get(name, 0) for name in known]
    named = sum(segments.values())
    own += [max(int(mix[LENGTH].sum()) - named, 0), named - sum(own)]
    return {**mix, SEGMENT: np.pad(np.array(own, np.int64), (0, BINS - len(own)))}
