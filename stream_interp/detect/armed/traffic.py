"""Has the traffic changed: how long requests are, where in their context they begin, and which segments they are of?

Of lengths and first positions, at cuts where the baseline's quantiles lie, one test each that the share of requests at
or beyond the cut rises, and one that it falls; and one that requests come beyond all of the baseline, which those cuts
do not see where many lie in its last bin. Of segments one each that its share rises and that it falls, and one that
requests come of others. The baseline has none of these, for what it has is known; how many there may be is told by its
segments of one request each, of which about as many are yet to come (Good: Biometrika 40 (1953)). A share may be off by
`drift.tolerance` as a feature's rate may. Such a change is no incident: tests of requests look at their first tokens,
whatever their length. It is said beside them, as `traffic_mix`, with a budget of its own: at most
`drift.false_alarms_per_week` of such notes a week in expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import mix
from stream_interp.detect.armed.features import HIGHEST_TESTED
from stream_interp.detect.armed.mix import LENGTH, SEGMENT, START, Mix
from stream_interp.detect.health import HALF_LIFE_REQUESTS
from stream_interp.drift import esr, recovery
from stream_interp.drift.esr import Floats
from stream_interp.drift.intervals import DELTA, clopper_pearson
from stream_interp.records.alert import TrafficShift
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader
from stream_interp.records.lengths import BINS, EDGES
from stream_interp.records.window import Window
from stream_interp.settings import DriftSettings

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Cut(NamedTuple):
    """The event that a request lies in the bins from `start` to `stop` of a distribution, or that it does not."""

    of: str
    start: int
    stop: int
    inside: bool


@dataclass(frozen=True)
class TrafficTests:
    """K tests, each that a cut's share of requests rises.

    Attributes:
        segments: that the baseline knows.
        share: [K] of the baseline.
        p: [K] boundary of the interval null.
        a_weeks: A of each.
    """

    cuts: tuple[Cut, ...]
    segments: tuple[str, ...]
    share: Floats
    p: Floats
    a_weeks: float


@dataclass(frozen=True)
class TrafficEvidence:
    """What moves.

    Attributes:
        m: [C, K] e-SR components, weeks.
        recent: [len(mix.OF), BINS] decayed counts.
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


def build(baseline: BaselineHeader, arrays: Arrays, drift: DriftSettings) -> TrafficTests:
    """Of a baseline; one of before it had a distribution is not tested for it."""
    known, segments = mix.of_baseline(baseline, arrays), mix.known_segments(baseline)
    cuts = [cut for of in (LENGTH, START) for cut in _at_quantiles(of, known[of])]
    cuts += [cut for of in (LENGTH, START) for cut in _beyond(of, known[of])]
    cuts += _of_segments(len(segments))  # last, as those before: older checkpoints have evidence of the first ones
    n, x = _counts(cuts, known)
    once = np.array([cut == _others(len(segments)) for cut in cuts]) * list(baseline.segments.values()).count(1)
    p, highest = _boundary(cuts, n, x + once, drift)
    armed = np.flatnonzero(p < highest)
    own, share = tuple(cuts[k] for k in armed), x[armed] / n[armed]
    return TrafficTests(own, segments, share, p[armed], len(own) / drift.false_alarms_per_week)


def _boundary(cuts: Sequence[Cut], n: Floats, x: Floats, drift: DriftSettings) -> tuple[Floats, Floats]:
    """Of each cut the largest share that the null allows, [K], and the one from which on there is no test of it, [K].

    A segment that falls need not make all others together rise by the tolerance: its own share may not fall by it.
    """
    _, high = clopper_pearson(x, n, DELTA / max(len(cuts), 1))
    p, highest = high * drift.tolerance, np.full(len(cuts), HIGHEST_TESTED)
    falls = np.array([cut.of == SEGMENT and not cut.inside for cut in cuts], bool)
    p[falls] = np.minimum(p, 1 - (1 - high) / drift.tolerance)[falls]
    highest[falls] = 1 - 1 / drift.sla_requests  # rarer ones would take too long to tell
    return p, highest


def _at_quantiles(of: str, requests: NDArray[np.int64]) -> list[Cut]:
    if not (total := requests.sum()):
        return []
    reached = np.searchsorted(np.cumsum(requests), np.array(QUANTILES) * total, side="right")
    edges = sorted({int(edge) for edge in reached} - {0})
    return [Cut(of, edge, BINS, inside) for edge in edges for inside in (True, False)]


def _beyond(of: str, requests: NDArray[np.int64]) -> list[Cut]:
    edges = [int(bins[-1]) + 1 for bins in [np.flatnonzero(requests)] if len(bins)]
    return [Cut(of, edge, BINS, True) for edge in edges if edge < BINS]


def _of_segments(n: int) -> list[Cut]:
    """n segments, the requests of none, and those of others, which are tested for coming only."""
    if not n:
        return []
    each = [Cut(SEGMENT, k, k + 1, inside) for k in range(n + 1) for inside in (True, False)]
    return [*each, _others(n)]


def _others(n: int) -> Cut:
    return Cut(SEGMENT, n + 1, n + 2, True)


def initial(tests: TrafficTests) -> TrafficEvidence:
    """Of tests that have seen nothing."""
    return TrafficEvidence(np.zeros((len(esr.ODDS_RATIOS), len(tests.cuts))), np.zeros((len(mix.OF), BINS)))


def tick(tests: TrafficTests, before: TrafficEvidence, window: Window, w: float) -> TrafficEvidence:
    """One window of w weeks; without a request it loses the time."""
    now = mix.of_window(window, tests.segments)
    n, x = _counts(tests.cuts, now)
    m = np.pad(before.m, ((0, 0), (0, len(n) - before.m.shape[1])))  # of a checkpoint of before the last cuts
    m = esr.update(m, w if n.any() else 0.0, n, tests.p, "up", np.arange(len(n)), x)
    new = np.stack([now[of] for of in mix.OF])
    kept = 0.5 ** (new.sum(axis=1).max() / HALF_LIFE_REQUESTS)
    recent = np.pad(before.recent, ((0, len(mix.OF) - len(before.recent)), (0, 0)))  # of before there were segments
    return TrafficEvidence(m, kept * recent + new)


def _counts(cuts: Sequence[Cut], of: Mix) -> tuple[Floats, Floats]:
    """n requests and Σx of each cut [K]; 0 of a distribution that there is not."""
    below = {name: np.concatenate([[0.0], np.cumsum(requests)]) for name, requests in of.items()}
    n = np.array([below[cut.of][-1] for cut in cuts])
    inside = np.array([below[cut.of][cut.stop] - below[cut.of][cut.start] for cut in cuts])
    return n, np.where([cut.inside for cut in cuts], inside, n - inside)


def noted(
    tests: TrafficTests, evidence: TrafficEvidence, note: TrafficNote | None, window: Window
) -> TrafficNote | None:
    """The note after a window: None while nothing crossed, and once all that crossed has recovered."""
    crossed = np.flatnonzero(esr.value(evidence.m) >= tests.a_weeks)
    if note is None and not len(crossed):
        return None
    n, x = _counts(tests.cuts, mix.of_window(window, tests.segments))
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
    """What a note is about, in shares of requests; of a segment always its own."""
    recent = dict(zip(mix.OF, evidence.recent, strict=False))
    found = []
    for k in note.crossed if note else ():
        cut, share = tests.cuts[k], float(tests.share[k])
        row = recent[cut.of]
        inside, total = float(row[cut.start : cut.stop].sum()), float(row.sum())
        now = (inside if cut.inside else total - inside) / total if total else None
        if cut.of == SEGMENT:
            found.append(_of_segment(tests.segments, cut, share, now))
        else:
            found.append(
                TrafficShift(
                    of="length" if cut.of == LENGTH else "start", tokens=int(EDGES[cut.start]),
                    side="at_least" if cut.inside else "below", share_baseline=share, share_now=now,
                )
            )  # fmt: skip
    return found


def _of_segment(segments: Sequence[str], cut: Cut, share: float, now: float | None) -> TrafficShift:
    if not cut.inside:
        share, now = 1 - share, None if now is None else 1 - now
    if cut.start < len(segments):
        name = segments[cut.start]
        return TrafficShift(of="segment", side="of", segment=name, share_baseline=share, share_now=now)
    side: Literal["of_none", "of_others"] = "of_none" if cut.start == len(segments) else "of_others"
    return TrafficShift(of="segment", side=side, share_baseline=share, share_now=now)


def moved(tests: TrafficTests, known: Mix, evidence: TrafficEvidence, note: TrafficNote | None) -> dict[str, float]:
    """Of each distribution the share of requests that has moved, at least, between those of the baseline, `known`, and
    recent ones: by Kolmogorov and Smirnov's distance, of segments by what those told of have gained or lost together;
    0 where one has none."""
    told = [tests.cuts[k].start for k in note.crossed if tests.cuts[k].of == SEGMENT] if note else []
    shares = dict.fromkeys(mix.OF, 0.0)
    for of, recent in zip(mix.OF, evidence.recent, strict=False):
        if (total := known[of].sum()) and (now := recent.sum()):
            apart = recent / now - known[of] / total
            if of == SEGMENT:
                apart = apart[sorted(set(told))]
                shares[of] = float(max(apart.clip(0).sum(), -apart.clip(None, 0).sum()))
            else:
                shares[of] = float(np.abs(np.cumsum(apart)).max())
    return shares
