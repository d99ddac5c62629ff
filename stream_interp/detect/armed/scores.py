"""The request-level tests of a stratum: one step a request, in log order (`drift.exceedance`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import exceedance
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.exceedance import EVEN, TOP_HEAVY, Exceedance
from stream_interp.records.alert import Group
from stream_interp.records.window import SCORES

_BLOCK_REQUESTS = 512  # at once: 1.1 MB of path
_CUSUM = 2  # the mixture component whose CUSUM dates a change: odds ratio 2.8


class ScoreTest(NamedTuple):
    """One one-sided request-level test."""

    score: str
    direction: Direction
    group: Group

    @property
    def is_raw(self) -> bool:
        """It sees the activations alone, not what an SAE makes of them."""
        return self.score not in NEED_SAE


# In the order of SCORES, new ones last. A baseline has those of the scores that it was counted with, so that its δ, its
# shares and its evidence stay as they were frozen, and a row means the same test whatever the baseline.
SCORE_TESTS = (
    ScoreTest("mean_sq_norm", "up", "t0"),
    ScoreTest("mean_sq_norm", "down", "t0"),
    ScoreTest("mahalanobis_sq", "up", "t0"),
    ScoreTest("error_share", "up", "health"),
    ScoreTest("l0", "up", "health"),
    ScoreTest("l0", "down", "health"),
    ScoreTest("massive_share", "up", "health"),
    ScoreTest("surprise", "up", "t0"),
    ScoreTest("rarity", "up", "t0"),
)
NEED_SAE = {"error_share", "l0", "surprise", "rarity"}


class Allotment(NamedTuple):
    """How the δ of a stratum is shared out: to the thresholds of its scores, and among the ranks of these."""

    of_scores: float
    weights: tuple[int, ...]


def allotment(columns: int) -> Allotment:
    """For a baseline with so many scores; one of before *rarity* keeps what it was frozen with.

    Features have far more intervals than scores have thresholds, so that a fifth of δ instead of a half makes theirs
    wider by a twentieth, and four fifths make the highest thresholds' null rates smaller by as much.
    """
    return Allotment(0.8, TOP_HEAVY) if columns > SCORES.index("rarity") else Allotment(0.5, EVEN)


@dataclass(frozen=True)
class ScoreEvidence:
    """What moves.

    Attributes:
        m: [C, K·ranks] e-SR components, weeks.
        cusum: [K·ranks] log CUSUM of one component.
        n_since: [K·ranks] int32 requests since it last touched 0.
    """

    m: Floats
    cusum: Floats
    n_since: NDArray[np.int32]


class ScorePeaks(NamedTuple):
    """What the statistics of a stratum's score tests came to inside a window."""

    peak: Floats  # [K] largest statistic, weeks
    cell_peak: Floats  # [K, ranks] the same of each threshold by itself
    first_over: NDArray[np.int64]  # [K] request inside the window, from 1, at which A was first reached; 0 = never


def build(scores: NDArray[np.float32], alpha: float, with_sae: bool, deff: float = 1.0) -> Exceedance:
    """Tests from calibration scores [n, S], of which `deff` count as one; alpha for all bounds together."""
    names = SCORES[: scores.shape[1]]
    tests = [test for test in SCORE_TESTS if test.score in names]
    columns = [(names.index(t.score), 1 if t.direction == "up" else -1) for t in tests]
    if not with_sae:
        scores = scores.copy()
        scores[:, [name in NEED_SAE for name in names]] = np.nan
    return exceedance.build(scores, columns, alpha, allotment(len(names)).weights, deff)


def signed(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, tests] of scores [n, S]: of each test its score, negative where it looks for less of it."""
    names = SCORES[: scores.shape[1]]
    tests = [test for test in SCORE_TESTS if test.score in names]
    return np.column_stack([scores[:, names.index(t.score)] * (1 if t.direction == "up" else -1) for t in tests])


def medians(scores: NDArray[np.float32]) -> dict[str, float]:
    """Of each score that is there."""
    names = SCORES[: scores.shape[1]]
    return {name: value for i, name in enumerate(names) if (value := median(scores[:, i])) is not None}


def median(scores: NDArray[np.float32]) -> float | None:
    """The median of the finite scores [n]; None where there is none: JSON has no NaN."""
    finite = scores[np.isfinite(scores)]
    return float(np.median(finite)) if len(finite) else None


def initial(tests: Exceedance) -> ScoreEvidence:
    """Of tests that have seen nothing."""
    cells = tests.thresholds.size
    return ScoreEvidence(exceedance.initial(tests), np.zeros(cells), np.zeros(cells, np.int32))


def tick(
    tests: Exceedance, before: ScoreEvidence, scores: NDArray[np.float32], w: float, a_weeks: Floats
) -> tuple[ScoreEvidence, ScorePeaks]:
    """One step a request of `scores` [n, S]; the window's time is spread evenly over its requests."""
    over, m = exceedance.exceeds(tests, scores), before.m
    peak, first = np.zeros(len(a_weeks)), np.zeros(len(a_weeks), np.int64)
    cell_peak = np.zeros(tests.thresholds.shape)
    if not len(over):  # the time passed all the same
        return ScoreEvidence(m + w, before.cusum, before.n_since), ScorePeaks(peak, cell_peak, first)
    for at in range(0, len(over), _BLOCK_REQUESTS):
        path = exceedance.path(tests, m, over[at : at + _BLOCK_REQUESTS], w / len(over))
        cells, m = exceedance.cells(tests, path), path[-1]
        value = exceedance.mean_of(tests, cells)
        reached = value >= a_weeks
        first = np.where((first == 0) & reached.any(axis=0), at + reached.argmax(axis=0) + 1, first)
        peak = np.maximum(peak, value.max(axis=0))
        cell_peak = np.maximum(cell_peak, cells.max(axis=0))
    cusum, since = _cusum(tests, before, over)
    return ScoreEvidence(m.copy(), cusum, since), ScorePeaks(peak, cell_peak, first)


def _cusum(tests: Exceedance, before: ScoreEvidence, over: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int32]]:
    """The log CUSUM of each threshold after the requests, and how many came since it last touched 0."""
    up, down = exceedance.LOG_ODDS[_CUSUM] * over.reshape(len(over), -1), tests.log_norm[_CUSUM]
    cusum, touched = before.cusum, np.empty(up.shape, np.bool_)
    for i, step_up in enumerate(up):
        cusum = cusum + step_up - down
        touched[i] = cusum <= 0
        cusum = np.maximum(cusum, 0)
    since = np.where(touched.any(axis=0), touched[::-1].argmax(axis=0), before.n_since + len(over))
    return cusum, since.astype(np.int32)
