"""Which tests have crossed their thresholds after a window, and which features are named with them (design §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.armed import Tests, Tick, means
from stream_interp.detect.armed.features import RATES
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.drift.ebh import e_d_bh
from stream_interp.records.alert import Group
from stream_interp.records.window import UNIT


class Of(NamedTuple):
    """Which tests: a kind of feature tests, or the scores, of a stratum."""

    stratum: str
    kind: str

    def __str__(self) -> str:
        """As states name it."""
        return f"{self.stratum}/{self.kind}"


def parse(name: str) -> Of:
    """What `str` of it said."""
    stratum, _, kind = name.partition("/")
    return Of(stratum, kind)


@dataclass(frozen=True)
class Crossings:
    """The tests that are at or over A after a window, and the largest statistic in units of A.

    Attributes:
        features: indices, by tests.
        means: rows of MeanTests, by direction.
        scores: rows of SCORE_TESTS, by stratum.
    """

    tick: Tick
    features: dict[Of, NDArray[np.int64]]
    means: dict[str, NDArray[np.int64]]
    scores: dict[str, NDArray[np.int64]]
    groups: frozenset[Group]
    largest_over_a: float


def crossings(tests: Tests, tick: Tick) -> Crossings:
    """Which tests have crossed."""
    groups, largest = set[Group](), [0.0]
    features = dict[Of, NDArray[np.int64]]()
    of_means, scores = dict[str, NDArray[np.int64]](), dict[str, NDArray[np.int64]]()
    for (stratum, kind), values in tick.features.items():
        group = tests.strata[stratum].features[kind].kind.group
        features[Of(stratum, kind)] = np.flatnonzero(values >= tests.a_weeks(group))
        largest.append(float(values.max(initial=0.0)) / tests.a_weeks(group))
        groups |= {group} if len(features[Of(stratum, kind)]) else set()
    for direction, values in tick.means.items():
        of_means[direction] = np.flatnonzero(values >= tests.a_weeks("means"))
        largest.append(float(values.max(initial=0.0)) / tests.a_weeks("means"))
        groups |= {"means"} if len(of_means[direction]) else set()
    for stratum, peaks in tick.scores.items():
        scores[stratum] = np.flatnonzero(peaks.first_over)
        largest.append(float((peaks.peak / tests.score_thresholds(stratum)).max()))
        groups |= {SCORE_TESTS[k].group for k in scores[stratum]}
    return Crossings(tick, features, of_means, scores, frozenset(groups), max(largest))


def named_features(found: Crossings, tests: Tests) -> dict[Of, NDArray[np.int64]]:
    """Per kind the features to list: those that e-d-BH names, and those that make up a mean that crossed.

    What opens an incident is e-d-Bonferroni, M ≥ A = K/α with α the group's alarms a week; beside it e-d-BH at the same
    α names more features, of which the false share stays below α·weeks in expectation.
    """
    crossed = _declared(found, tests)
    for kind in RATES:
        of = Of(UNIT, str(kind))
        for row in found.means.get(kind.direction, ()):
            made = means.makers(tests.means[kind.direction], int(row), found.tick.features[of])
            crossed[of] = np.union1d(crossed[of], made)
    return crossed


def _declared(found: Crossings, tests: Tests) -> dict[Of, NDArray[np.int64]]:
    """By tests, what e-d-BH names over all tests of a group together: the k strongest, if the k-th has M ≥ A/k."""
    named = {of: np.zeros(0, np.int64) for of in found.features}
    for group in {"features", "magnitude"} & tests.thresholds.keys():
        of_group = [of for of in found.features if tests.strata[of.stratum].features[of.kind].kind.group == group]
        values = np.concatenate([found.tick.features[of] for of in of_group])  # 0 where unarmed: never named
        declared = e_d_bh(values, len(values) / tests.a_weeks(group))
        of_kind, feature = np.divmod(declared, tests.d_sae)
        named |= {of: feature[of_kind == k] for k, of in enumerate(of_group)}
    return named
