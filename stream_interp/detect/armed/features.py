"""Does each feature fire as often, and as strongly, as in the baseline? One mixture e-SR a feature, measure, direction.

    rate                  requests in which the feature fired, of all requests
    magnitude             Σ of the requests' capped maxima, of all requests
    magnitude_when_fired  the same, of the requests in which the feature fired

All three are means of values in [0, 1], one a request, which is all that `drift.esr` asks of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift import esr
from stream_interp.drift.esr import Direction, Floats
from stream_interp.drift.intervals import bounded_mean, clopper_pearson
from stream_interp.records.alert import Group, Measure
from stream_interp.records.arrays import Arrays
from stream_interp.settings import DriftSettings

HIGHEST_TESTED = 0.95  # an up-test whose null touches 1 can never alarm
MIN_FIRINGS = 10  # in the baseline; a feature with fewer is tested for firing more often, and for nothing else
MAGNITUDE_RATIOS: Floats = np.geomspace(1.3, 8.0, 4)  # of the odds; a mean magnitude of 0.3 has little room above it
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
MAGNITUDES: tuple[Measure, ...] = ("magnitude", "magnitude_when_fired")
_CUSUM = 2  # the mixture component whose CUSUM dates a change: odds ratio 2.8


class Kind(NamedTuple):
    """What is measured, and which change of it is looked for."""

    measure: Measure
    direction: Direction

    def __str__(self) -> str:
        """As states and incidents name it."""
        return f"{self.measure} {self.direction}"

    @property
    def group(self) -> Group:
        """Whose share of the budget its tests have."""
        return "features" if self.measure == "rate" else "magnitude"

    @property
    def ratios(self) -> Floats:
        """[C] odds ratios of the mixture."""
        return esr.ODDS_RATIOS if self.measure == "rate" else MAGNITUDE_RATIOS


RATES = tuple(Kind("rate", direction) for direction in DIRECTIONS)
KINDS = (*RATES, *(Kind(measure, direction) for measure in MAGNITUDES for direction in DIRECTIONS))


@dataclass(frozen=True)
class FeatureTests:
    """The tests of one kind, of all features.

    Attributes:
        p: [d_sae] float32 boundary of the interval null, rounded outwards; +inf (up) or −inf (down) where unarmed, so
            that L = 0.
        silent: [d_sae] float32 log evidence that one request without the feature takes from the CUSUM; of magnitudes
            none, [0].
    """

    kind: Kind
    p: NDArray[np.float32]
    silent: NDArray[np.float32]

    @property
    def armed(self) -> NDArray[np.bool_]:
        """[d_sae]: which features have the test."""
        return np.isfinite(self.p)


@dataclass(frozen=True)
class FeatureEvidence:
    """What moves for the tests of one kind. Of magnitudes there is no CUSUM: the bytes are not worth it.

    Attributes:
        m: [C, d_sae] e-SR components, weeks.
        n_since: [d_sae] int32 requests since the change, if there is one: of rates since the CUSUM last touched 0, of
            magnitudes since the statistic was last no more than the time of its window.
        cusum: [d_sae] log CUSUM of one component; [0] of magnitudes.
        x_since: [d_sae] int32 requests that fired among `n_since`; [0] of magnitudes.
    """

    m: Floats
    n_since: NDArray[np.int32]
    cusum: Floats
    x_since: NDArray[np.int32]


class Seen(NamedTuple):
    """What a window says of the features of a stratum: [f] of those that fired in any of its n requests, ascending."""

    n: int
    ids: NDArray[np.int64]
    fired: Floats
    mag: Floats


def seen_in(n: int, arrays: Arrays) -> Seen:
    """The features that fired in a request's unit; a window lists those, too, that fired later alone."""
    some = arrays["requests_fired"] > 0
    ids, fired = arrays["feature_ids"][some].astype(np.int64), arrays["requests_fired"][some].astype(np.float64)
    return Seen(n, ids, fired, np.minimum(arrays["mag_sum"][some], fired))


def counts(kind: Kind, seen: Seen, index: NDArray[np.int64]) -> tuple[float | Floats, Floats]:
    """n and Σx of the features `index` [m] in a window: of how many requests, and what they add up to."""
    ids, at = np.append(seen.ids, -1), np.searchsorted(seen.ids, index)
    fired, mag = (np.where(ids[at] == index, np.append(of, 0.0)[at], 0.0) for of in (seen.fired, seen.mag))
    if kind.measure == "rate":
        return seen.n, fired
    return (seen.n if kind.measure == "magnitude" else fired), mag


def build(
    kind: Kind,
    n: int,
    fired: NDArray[np.int64],
    mag: Floats | None,
    alpha: float,
    drift: DriftSettings,
    deff: float,
) -> FeatureTests:
    """Tests against a baseline of n requests, of which `deff` count as one; alpha for each bound of each interval."""
    covered = fired >= MIN_FIRINGS
    if kind.measure == "rate":
        low, high = clopper_pearson(fired / deff, n / deff, alpha)
        if kind.direction == "up":
            covered = np.full(len(fired), True)
        low = np.where(low / drift.tolerance > 1 / drift.sla_requests, low, 0.0)  # silence would take too long to tell
    else:
        assert mag is not None
        of = np.full(len(fired), float(n)) if kind.measure == "magnitude" else fired.astype(np.float64)
        low, high = bounded_mean(mag / deff, of / deff, alpha)
    if kind.direction == "up":
        p = np.nextafter((high * drift.tolerance).astype(np.float32), np.float32(2))
        p = np.where(covered & (p < HIGHEST_TESTED), p, np.float32(np.inf))
    else:
        p = np.nextafter((low / drift.tolerance).astype(np.float32), np.float32(-1))
        p = np.where(covered & (p > 0), p, np.float32(-np.inf))
    silent = np.zeros(0, np.float32)
    if kind.measure == "rate":
        silent = _silent(kind, p.astype(np.float64)).astype(np.float32)
    return FeatureTests(kind, p, silent)


def initial(tests: FeatureTests) -> FeatureEvidence:
    """Of tests that have seen nothing."""
    d_sae = len(tests.p)
    since = np.zeros(d_sae, np.int32)
    of_cusum = d_sae if tests.kind.measure == "rate" else 0
    return FeatureEvidence(
        np.zeros((len(tests.kind.ratios), d_sae)), since, np.zeros(of_cusum), np.zeros(of_cusum, np.int32)
    )


def null_at(tests: FeatureTests, factor: float) -> Floats:
    """[d_sae] boundary of the null where rates, or their odds, are known to be `factor` times those of the baseline.

    For rare features that is the same; dense ones cannot follow a rate beyond 1, so the further of the two holds. How
    strongly a feature fires where it does has no such rhythm.
    """
    p = tests.p.astype(np.float64)
    if factor == 1.0 or tests.kind.measure == "magnitude_when_fired":
        return p
    known = np.where(tests.armed, p, 0.5)
    of_rate, of_odds = np.minimum(known * factor, 1.0), known * factor / (1 - known + known * factor)
    further = np.maximum if tests.kind.direction == "up" else np.minimum
    return np.where(tests.armed, further(of_rate, of_odds), p)


def tick(
    tests: FeatureTests, before: FeatureEvidence, seen: Seen, w: float, factor: float = 1.0
) -> tuple[FeatureEvidence, Floats]:
    """One window of w weeks; and the statistic of each test after it, [d_sae] weeks, 0 where unarmed."""
    p = null_at(tests, factor)
    m = _components(tests, p, before.m, seen, w)
    value = np.where(tests.armed, esr.value(m), 0.0)
    n_since = before.n_since + np.int32(seen.n)
    if tests.kind.measure != "rate":
        n_since[value <= w] = 0
        return FeatureEvidence(m, n_since, before.cusum, before.x_since), value
    silent = tests.silent.astype(np.float64) if factor == 1.0 else _silent(tests.kind, p)
    cusum, x_since = before.cusum - seen.n * silent, before.x_since.copy()
    cusum[seen.ids] += esr.log_odds(tests.kind.direction)[_CUSUM] * seen.fired
    x_since[seen.ids] += seen.fired.astype(np.int32)
    over = cusum <= 0
    cusum[over], n_since[over], x_since[over] = 0.0, 0, 0
    return FeatureEvidence(m, n_since, cusum, x_since), value


def _silent(kind: Kind, p: Floats) -> Floats:
    """What the CUSUM loses in a request without the feature, [d_sae]."""
    placeholder = np.where(np.isfinite(p), p, 0.5)
    lost: Floats = esr.log_normaliser(placeholder, kind.direction, esr.ODDS_RATIOS[_CUSUM : _CUSUM + 1])[0]
    return lost


def _components(tests: FeatureTests, p: Floats, m: Floats, seen: Seen, w: float) -> Floats:
    direction, ratios = tests.kind.direction, tests.kind.ratios
    if tests.kind.measure == "rate":
        return esr.update(m, w, seen.n, p, direction, seen.ids, seen.fired, ratios)
    if tests.kind.measure == "magnitude":
        some = seen.mag > 0
        return esr.update(m, w, seen.n, p, direction, seen.ids[some], seen.mag[some], ratios)
    # where a feature did not fire there is nothing to say of how strongly
    return esr.update(m, w, seen.fired, p, direction, seen.ids, seen.mag, ratios)
