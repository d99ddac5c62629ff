"""The tests that an incident lists, and the recovery that each of them owes (design §4, "After an alarm")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import StratumTests
from stream_interp.detect.armed.features import FeatureTests, Kind, Seen, counts, null_at
from stream_interp.detect.health import HALF_LIFE_REQUESTS
from stream_interp.drift import esr, exceedance, recovery
from stream_interp.drift.esr import Floats

SCORES_KIND = "scores"  # beside the kinds of feature tests


@dataclass(frozen=True)
class Listed:
    """Of one kind of test of one stratum, [m] each.

    Attributes:
        index: feature, or row of SCORE_TESTS.
        e: [C, m·cells] recovery e-process; cells = 1 for features, len(RANKS) for scores.
        tick: [m·cells] ticks since each process started.
        crossed: [m·cells] bool, which cells must recover: of scores those that reached A themselves. That a score's
            other thresholds look normal is no evidence: rare outliers move the highest ranks alone.
        request: lane's request at detection.
        offset: of the window that showed it, in the lane's windows partition.
        log_e: largest log statistic so far, weeks.
        n_now, x_now: [m] n and Σx of recent windows, from the one of the detection on; of scores 0.
    """

    index: NDArray[np.int64]
    e: Floats
    tick: NDArray[np.int64]
    crossed: NDArray[np.bool_]
    request: NDArray[np.int64]
    offset: NDArray[np.int64]
    log_e: Floats
    n_now: Floats
    x_now: Floats

    def __len__(self) -> int:
        """How many tests."""
        return len(self.index)

    @property
    def evidence_of_recovery(self) -> float:
        """The least of those that must recover; inf where nothing must."""
        return float(esr.value(self.e)[self.crossed].min(initial=np.inf))


def nothing_listed() -> Listed:
    """Before the first test of a kind crosses."""
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    e = np.zeros((len(recovery.ODDS_RATIOS), 0))
    return Listed(none, e, none, none.astype(bool), none, none, np.zeros(0), np.zeros(0), np.zeros(0))


def join(
    listed: Listed,
    crossed: NDArray[np.int64],
    log_e: Floats,
    request: NDArray[np.int64],
    offset: int,
    cells: NDArray[np.bool_],
) -> Listed:
    """Adds the crossed tests that are not listed yet.

    A cell that crosses for the first time starts its recovery then.

    Args:
        listed: those so far.
        crossed: [c] indices.
        log_e: [K] of all tests of the kind.
        request: [c] lane's request.
        offset: of the window.
        cells: [K, cells] which have crossed.
    """
    new = ~np.isin(crossed, listed.index)
    index = np.concatenate([listed.index, crossed[new]])
    added = int(new.sum())
    before = np.concatenate([listed.crossed, np.zeros(added * cells.shape[1], bool)])
    after = before | cells[index].ravel()
    waiting = len(after) - len(listed.tick)
    e = np.concatenate([listed.e, np.zeros((len(recovery.ODDS_RATIOS), waiting))], axis=1)
    tick = np.concatenate([listed.tick, np.zeros(waiting, np.int64)])
    return Listed(
        index=index,
        e=np.where(after & ~before, 0.0, e),
        tick=np.where(after & ~before, 0, tick),
        crossed=after,
        request=np.concatenate([listed.request, request[new]]),
        offset=np.concatenate([listed.offset, np.full(added, offset)]),
        log_e=np.maximum(np.concatenate([listed.log_e, np.full(added, -np.inf)]), log_e[index]),
        n_now=np.concatenate([listed.n_now, np.zeros(added)]),
        x_now=np.concatenate([listed.x_now, np.zeros(added)]),
    )


def feed_features(listed: Listed, of: FeatureTests, seen: Seen, factor: float) -> Listed:
    """A later window, for the recovery of features; their null rates are `factor` times those of the baseline."""
    n, x = counts(of.kind, seen, listed.index)
    tick = listed.tick + 1
    e = recovery.update(listed.e, tick, null_at(of, factor)[listed.index], of.kind.direction, n, x)
    return replace(listed, e=e, tick=tick)


def seen_now(listed: Listed, kind: Kind, seen: Seen) -> Listed:
    """With a window in the sums of recent ones."""
    n, x = counts(kind, seen, listed.index)
    kept = 0.5 ** (seen.n / HALF_LIFE_REQUESTS)
    return replace(listed, n_now=kept * listed.n_now + n, x_now=kept * listed.x_now + x)


def feed_scores(listed: Listed, tests: StratumTests, scores: NDArray[np.floating[Any]]) -> Listed:
    """A later window's scores [n, S], for the recovery of score tests."""
    x = exceedance.exceeds(tests.scores, scores.astype(np.float32)).sum(axis=0)[listed.index].astype(np.float64)
    known = (~np.isnan(scores[:, tests.scores.column[listed.index]])).sum(axis=0)  # a missing score is no evidence
    n, p = np.repeat(known, x.shape[1]).astype(np.float64), tests.scores.null_rates[listed.index]
    tick = listed.tick + 1
    return replace(listed, e=recovery.update(listed.e, tick, p.ravel(), "up", n, x.ravel()), tick=tick)
