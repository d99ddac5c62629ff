"""Where is a change? The strongest test that opened an incident, followed by input partition from then on.

Requests come to input partitions by a hash of their ids, so whatever changes the requests or the model shows in all
partitions alike. What shows in some of them alone lies behind those: a producer that writes nowhere else, or the ENCODE
that owns them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import StratumTests, Tests
from stream_interp.detect.armed.features import counts, seen_in
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.listed import SCORES_KIND
from stream_interp.drift import exceedance
from stream_interp.drift.after_alarm import Counted, rate_interval
from stream_interp.drift.esr import Direction, Floats
from stream_interp.records.window import SCORES, Window, stratum_of, widened

CHANCE = 1e-3  # that a change of all partitions is ever taken for one of some of them
MIN_WINDOWS = 4  # of each partition: a change may begin or end between the windows of two, and that is no difference


@dataclass(frozen=True)
class Witness:
    """One test, and Σx and n of it by input partition, of requests that came after the incident had opened.

    Attributes:
        kind: of feature tests, or SCORES_KIND.
        index: feature, or row of SCORE_TESTS.
        cell: which threshold of a score; else 0.
        partition: [P] those that sent a window since. The first of each is not counted, for it may have begun before.
        windows: [P] windows counted.
        n, x: [P] of them.
    """

    stratum: str
    kind: str
    index: int
    cell: int
    partition: NDArray[np.int64]
    windows: NDArray[np.int64]
    n: Floats
    x: Floats

    @property
    def direction(self) -> Direction:
        """Of the values followed: a score's are exceedances of its threshold, whichever side that is on."""
        return "down" if self.kind.endswith(" down") else "up"

    def __str__(self) -> str:
        """For people."""
        if self.kind == SCORES_KIND:
            return f"the share of requests with {SCORE_TESTS[self.index].score} beyond its threshold"
        measure = self.kind.rpartition(" ")[0]
        return f"the {'firing rate' if measure == 'rate' else measure.replace('_', ' ')} of feature {self.index}"


class Spread(NamedTuple):
    """Partitions with enough windows: where the change surely is, where surely not or less of it, and the rest."""

    changed: NDArray[np.int64]
    others: NDArray[np.int64]
    undecided: NDArray[np.int64]

    @property
    def is_partial(self) -> bool:
        """The change is in some partitions alone."""
        return len(self.changed) > 0 and len(self.others) > 0 and not len(self.undecided)


def begun(stratum: str, kind: str, index: int, cell: int, window: Window) -> Witness:
    """Nothing counted yet; `window` opened the incident, so the next one of its partition began after that."""
    none = np.zeros(1)
    own = np.array([window.header.cut.partition])
    return Witness(stratum, kind, index, cell, own, np.zeros(1, np.int64), none, none)


def fed(witness: Witness, tests: Tests, window: Window) -> Witness:
    """With a later window."""
    own = witness.partition == window.header.cut.partition
    if not own.any():
        return replace(
            witness, partition=np.append(witness.partition, window.header.cut.partition),
            windows=np.append(witness.windows, 0), n=np.append(witness.n, 0.0), x=np.append(witness.x, 0.0),
        )  # fmt: skip
    n, x = _values(witness, tests.strata[witness.stratum], window)
    return replace(witness, windows=witness.windows + own * (n > 0), n=witness.n + own * n, x=witness.x + own * x)


def _values(witness: Witness, own: StratumTests, window: Window) -> tuple[float, float]:
    requests, arrays = stratum_of(window, witness.stratum)
    if witness.kind == SCORES_KIND:
        scores = widened(arrays["request_scores"], len(SCORES))
        known = ~np.isnan(scores[:, own.scores.column[witness.index]])
        over = exceedance.exceeds(own.scores, scores)[:, witness.index, witness.cell]
        return float(known.sum()), float(over.sum())
    kind = own.features[witness.kind].kind
    n, x = counts(kind, seen_in(requests, arrays), np.array([witness.index]))
    return float(np.asarray(n).max()), float(x[0])


def edge(witness: Witness, tests: Tests) -> float:
    """What the null allows of its mean, at most or at least."""
    own = tests.strata[witness.stratum]
    if witness.kind == SCORES_KIND:
        return float(own.scores.null_rates[witness.index, witness.cell])
    return float(own.features[witness.kind].p[witness.index])


def spread(witness: Witness, tests: Tests) -> Spread:
    """In which partitions the change is; all bounds hold together, at all times, with probability 1 − CHANCE."""
    x, p = _upwards(witness, edge(witness, tests))
    enough = witness.windows >= MIN_WINDOWS
    low, high = rate_interval(Counted(witness.n, x), CHANCE / len(x))
    changed = enough & (low > p)
    others = enough & (high < low.min(where=changed, initial=np.inf)) if changed.any() else np.zeros_like(changed)
    return Spread(*(witness.partition[which] for which in (changed, others, enough & ~changed & ~others)))


def beyond(witness: Witness, tests: Tests) -> tuple[float, float]:
    """A lower bound of its mean over all partitions, and the null's edge; both turned so that the change is upwards."""
    x, p = _upwards(witness, edge(witness, tests))
    low, _ = rate_interval(Counted(witness.n.sum(keepdims=True), x.sum(keepdims=True)), CHANCE)
    return float(low[0]), p


def _upwards(witness: Witness, p: float) -> tuple[Floats, float]:
    return (witness.x, p) if witness.direction == "up" else (witness.n - witness.x, 1 - p)


def mean(witness: Witness, partitions: NDArray[np.int64]) -> float:
    """Over some of its partitions."""
    some = np.isin(witness.partition, partitions)
    return float(witness.x[some].sum() / max(witness.n[some].sum(), 1.0))
