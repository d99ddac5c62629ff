"""What a lane learns in *calibrate* of its strata: short requests, and the later blocks of long ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_interp.records.arrays import Arrays
from stream_interp.records.window import SCORES, Window, named, stratum_of, widened

STRATUM_REQUESTS = 200  # a stratum with fewer gets no baseline

Scores = tuple[NDArray[np.float32], ...]  # windows' request scores, in log order, all of one width


@dataclass(frozen=True)
class LearnedStratum:
    """What the requests of one stratum add up to.

    Attributes:
        fired: [d_sae] int64, requests in which each feature fired.
        mag: [d_sae] float64, Σ mag_sum.
    """

    requests: int
    fired: NDArray[np.int64]
    mag: NDArray[np.float64]
    scores: Scores

    def frozen(self, name: str) -> Arrays:
        """For a baseline, where the stratum is called so."""
        scores = np.concatenate(self.scores)
        arrays: Arrays = {"requests_fired": self.fired, "mag_sum": self.mag, "calibration_scores": scores}
        return {named(name, array): values for array, values in arrays.items()}


def strata_after(before: dict[str, LearnedStratum], window: Window, unit_requests: int) -> dict[str, LearnedStratum]:
    """With one more window. None has more than `unit_requests`, so that short requests cannot fill the memory."""
    after = dict(before)
    for name, more in window.header.strata.items():
        known = before.get(name) or _nothing(window.header.d_sae)
        if known.requests + more <= unit_requests:
            _, arrays = stratum_of(window, name)
            ids = arrays["feature_ids"]
            after[name] = LearnedStratum(
                requests=known.requests + more,
                fired=added(known.fired, ids, arrays["requests_fired"]),
                mag=added(known.mag, ids, arrays["mag_sum"]),
                scores=with_scores(known.scores, arrays["request_scores"]),
            )
    return after


def enough(strata: dict[str, LearnedStratum]) -> dict[str, LearnedStratum]:
    """Those that get a baseline."""
    return {name: learned for name, learned in sorted(strata.items()) if learned.requests >= STRATUM_REQUESTS}


def added(total: NDArray[Any], ids: NDArray[np.int32], values: NDArray[Any]) -> NDArray[Any]:
    """A new total [d_sae] with the values of the features `ids` [m] added."""
    total = total.copy()
    total[ids] += values
    return total


def with_scores(before: Scores, scores: NDArray[np.float32]) -> Scores:
    """Not wider than they came: from windows of before a score, a log gives the baseline that it gave before."""
    width = before[-1].shape[1] if before else 0
    columns = min(max(width, scores.shape[1]), len(SCORES))
    if width < columns:
        before = tuple(widened(part, columns) for part in before)
    return (*before, widened(scores, columns))


def _nothing(d_sae: int) -> LearnedStratum:
    return LearnedStratum(0, np.zeros(d_sae, np.int64), np.zeros(d_sae), ())
