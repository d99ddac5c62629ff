"""Has the traffic changed: how long requests are, and where in their context they begin?

Per distribution, at cuts where the baseline's quantiles lie, one test each that the share of requests at or beyond the
cut rises, and one that it falls; and one that requests come beyond all of the baseline, which those cuts do not see
where many lie in its last bin. The share may be off by `drift.tolerance` as a feature's rate may. Such a change is no
incident: tests of requests look at their first tokens, whatever their length. It is said beside them, as `traffic_mix`,
with a budget of its own: at most `drift.false_alarms_per_week` of such notes a week in expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed.features import HIGHEST_TESTED
from stream_interp.detect.health import HALF_LIFE_REQUESTS
from stream_interp.drift import esr, recovery
from stream_interp.drift.esr import Floats
from stream_interp.drift.intervals import DELTA, clopper_pearson
from stream_interp.records.alert import TrafficShift
from stream_interp.records.arrays import Arrays
from stream_interp.records.lengths import BINS, EDGES
from stream_interp.settings import DriftSettings

HISTOGRAMS = {"length_histogram": "length", "start_histogram": "start"}
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Cut(NamedTuple):
    """The event that a request lies on one side of an edge."""

    histogram: str
    bin: int
    at_least: bool


@dataclass(frozen=True)
class TrafficTests:
    """K tests, each that a cut's share of requests rises.

    Attributes:
        share: [K] of the baseline.
        p: [K] boundary of the interval null.
        a_weeks: A of each.
    """

    cuts: tuple[Cut, ...]
    share: Floats
    p: Floats
    a_weeks: float


@dataclass(frozen=True)
class TrafficEvidence:
    """What moves.

    Attributes:
        m: [C, K] e-SR components, weeks.
        recent: [len(HISTOGRAMS), BINS] decayed counts.
    """

    m: Floats
    recent: Floats


@dataclass(frozen=True)
class TrafficNote:
    """A change that was told and is not over.

    Attributes:
        crossed: [c] tests that crossed.
        e: [C, c] their recovery.
        tick: [c] ticks of it.
    """

    crossed: NDArray[np.int64]
    e: Floats
    tick: NDArray[np.int64]


def build(arrays: Arrays, drift: DriftSettings) -> TrafficTests:
    """Of a baseline; one of before it had a distribution is not tested for it."""
    cuts, beyond = list[Cut](), list[Cut]()
    for name in HISTOGRAMS:
        if (total := _total(arrays, name)) > 0:
            reached = np.searchsorted(np.cumsum(arrays[name]), np.array(QUANTILES) * total, side="right")
            edges = sorted({int(edge) for edge in reached} - {0})
            cuts += [Cut(name, edge, at_least) for edge in edges for at_least in (True, False)]
            beyond += [Cut(name, edge, True) for edge in [int(np.flatnonzero(arrays[name])[-1]) + 1] if edge < BINS]
    cuts += beyond  # last: a checkpoint of before there were such has evidence of the others
    n, x = _counts(cuts, arrays)
    share, (_, high) = x / n, clopper_pearson(x, n, DELTA / max(len(cuts), 1))
    armed = np.flatnonzero(high * drift.tolerance < HIGHEST_TESTED)
    own = tuple(cuts[k] for k in armed)
    return TrafficTests(own, share[armed], high[armed] * drift.tolerance, len(own) / drift.false_alarms_per_week)


def _total(arrays: Arrays, name: str) -> int:
    return int(arrays[name].sum()) if name in arrays else 0


def initial(tests: TrafficTests) -> TrafficEvidence:
    """Of tests that have seen nothing."""
    return TrafficEvidence(np.zeros((len(esr.ODDS_RATIOS), len(tests.cuts))), np.zeros((len(HISTOGRAMS), BINS)))


def tick(tests: TrafficTests, before: TrafficEvidence, arrays: Arrays, w: float) -> TrafficEvidence:
    """One window of w weeks; without a request it loses the time."""
    n, x = _counts(tests.cuts, arrays)
    m = np.pad(before.m, ((0, 0), (0, len(n) - before.m.shape[1])))  # of a checkpoint of before the last cuts
    m = esr.update(m, w if n.any() else 0.0, n, tests.p, "up", np.arange(len(n)), x)
    requests = max(_total(arrays, name) for name in HISTOGRAMS)
    kept = 0.5 ** (requests / HALF_LIFE_REQUESTS)
    new = np.stack([arrays.get(name, np.zeros(BINS)) for name in HISTOGRAMS])
    return TrafficEvidence(m, kept * before.recent + new)


def _counts(cuts: Sequence[Cut], arrays: Arrays) -> tuple[Floats, Floats]:
    """n requests and Σx of each cut [K]; 0 of a distribution that there is not."""
    below = {name: np.cumsum(arrays.get(name, np.zeros(BINS)), dtype=np.float64) for name in HISTOGRAMS}
    n = np.array([below[cut.histogram][-1] for cut in cuts])
    under = np.array([below[cut.histogram][cut.bin - 1] for cut in cuts])  # no cut lies at the first bin
    return n, np.where([cut.at_least for cut in cuts], n - under, under)


def noted(
    tests: TrafficTests, evidence: TrafficEvidence, note: TrafficNote | None, arrays: Arrays
) -> TrafficNote | None:
    """The note after a window: None while nothing crossed, and once all that crossed has recovered."""
    crossed = np.flatnonzero(esr.value(evidence.m) >= tests.a_weeks)
    if note is None and not len(crossed):
        return None
    n, x = _counts(tests.cuts, arrays)
    held = note or TrafficNote(np.zeros(0, np.int64), np.zeros((len(recovery.ODDS_RATIOS), 0)), np.zeros(0, np.int64))
    e = recovery.update(held.e, held.tick + 1, tests.p[held.crossed], "up", n[held.crossed], x[held.crossed])
    if note is not None and float(esr.value(e).min(initial=np.inf)) >= recovery.RECOVERED:
        return None
    new = np.setdiff1d(crossed, held.crossed)
    return TrafficNote(
        np.concatenate([held.crossed, new]),
        np.concatenate([e, np.zeros((len(e), len(new)))], axis=1),
        np.concatenate([held.tick + 1, np.zeros(len(new), np.int64)]),
    )


def shifts(tests: TrafficTests, evidence: TrafficEvidence, note: TrafficNote | None) -> list[TrafficShift]:
    """What a note is about, in shares of requests."""
    found = []
    for k in note.crossed if note else ():
        cut = tests.cuts[k]
        row = evidence.recent[list(HISTOGRAMS).index(cut.histogram)]
        side = row[cut.bin :] if cut.at_least else row[: cut.bin]
        found.append(
            TrafficShift(
                of="length" if cut.histogram == "length_histogram" else "start", tokens=int(EDGES[cut.bin]),
                side="at_least" if cut.at_least else "below", share_baseline=float(tests.share[k]),
                share_now=float(side.sum() / row.sum()) if row.sum() else None,
            )
        )  # fmt: skip
    return found


def moved(arrays: Arrays, evidence: TrafficEvidence) -> dict[str, float]:
    """Of lengths and starts, the share of requests that has moved, at least: the distance of Kolmogorov and Smirnov
    between recent requests and the baseline; 0 where one of the two has none."""
    shares = {}
    for recent, (name, of) in zip(evidence.recent, HISTOGRAMS.items(), strict=True):
        known = _total(arrays, name) > 0 and recent.sum() > 0
        apart = np.cumsum(recent) / recent.sum() - np.cumsum(arrays[name]) / _total(arrays, name) if known else 0.0
        shares[of] = float(np.abs(apart).max())
    return shares
