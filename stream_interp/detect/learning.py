"""How a lane learns, in two phases (design §4): *fit* makes the projector, *calibrate* counts the baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version as version_of

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from stream_interp.detect import health
from stream_interp.detect.armed.scores import signed
from stream_interp.detect.card import sight_of
from stream_interp.detect.group_keys import ByBucket, groups_after
from stream_interp.detect.health import HealthSums
from stream_interp.detect.hours import Hours
from stream_interp.detect.strata import LearnedStratum, Scores, added, enough, strata_after, with_scores
from stream_interp.drift import design_effect, stationarity
from stream_interp.drift.design_effect import CLUSTER_REQUESTS, DesignEffect
from stream_interp.records import segments
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, ProjectorHeader, Versioned, make_control
from stream_interp.records.lane import Lane
from stream_interp.records.lengths import BINS, length_bins, percentile
from stream_interp.records.moments import Moments, unpack_scatter
from stream_interp.records.window import ERROR_EVERY, FIT, FLOAT32, Window
from stream_interp.settings import BaselineSettings, DriftSettings, UnitSettings

_CODE_VERSION = version_of("stream-interp")  # looking it up reads files

_NOT_KNOWN = design_effect.Estimate(np.nan, np.nan, 0)
FIT_SHARE = 0.2
UNIT_PERCENTILE = 0.1
EIGENVALUE_FLOOR = 1e-6  # of the mean eigenvalue; directions below are left out
ENOUGH_TOKENS_PER_COORDINATE = 5
SHRINKAGE = 0.1  # towards the mean eigenvalue, with fewer tokens than that
PROVISIONAL_BELOW = BaselineSettings().requests


@dataclass(frozen=True)
class Learned:
    """What the windows of one phase add up to.

    Attributes:
        fired: [d_sae] int64, requests in which each feature fired.
        feature_max: [d_sae] float32, largest request maximum.
        fit_n, fit_sum, fit_scatter: moments of the tokens, [r] and [r, r]; empty in calibrate.
        scores: of the width of the newest version among the windows.
        mag: [d_sae] float64, Σ mag_sum; None where a version that did not keep it learned some of the requests.
        of_requests, of_tokens: design effects, in calibrate; None where a version learned that kept none.
        of_groups: of requests that have one, in calibrate; None where none has.
        first_ms, last_ms, first_offset, last_offset: of the phase's windows; 0 and -1 where a version kept none.
        partitions: of the input, one for each of `scores`; fewer where a version learned that kept none.
        lengths, starts: [BINS] int64, requests by counted tokens and by the position of their first.
        segments: requests by the segment that they name; None where a version learned that counted none.
    """

    requests: int
    tokens: int
    too_short: int
    lengths: NDArray[np.int64]
    fired: NDArray[np.int64]
    feature_max: NDArray[np.float32]
    fit_n: int
    fit_sum: NDArray[np.float64]
    fit_scatter: NDArray[np.float64]
    sums: HealthSums
    scores: Scores
    d_in: int = 0  # not known of what was learned by a version that did not keep it, until the next window
    proposed_dtype: str = ""  # the first proposal among the windows, in log order; empty: none yet
    mag: NDArray[np.float64] | None = None
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    segments: dict[str, int] | None = None
    strata: dict[str, LearnedStratum] = field(default_factory=dict)
    hours: Hours = field(default_factory=Hours)
    of_requests: DesignEffect | None = None
    of_tokens: DesignEffect | None = None
    of_groups: ByBucket | None = None
    partitions: tuple[int, ...] = ()
    first_ms: int = 0
    last_ms: int = 0
    first_offset: int = -1
    last_offset: int = -1


def absorb(learned: Learned | None, window: Window, at_ms: int, offset: int) -> Learned:
    """One more window of the phase; `at_ms` is the lane's time with it, Unix epoch, `offset` where it lies."""
    header, arrays = window.header, window.arrays
    before = learned or _nothing(window, at_ms, offset)
    ids = arrays["feature_ids"]
    maximum = before.feature_max.copy()
    maximum[ids] = np.maximum(maximum[ids], arrays["request_max"])
    moments = _merged(before, window)
    requests = before.requests + header.requests
    return Learned(
        d_in=header.d_in,
        proposed_dtype=before.proposed_dtype or header.proposed_dtype,
        requests=requests,
        tokens=before.tokens + header.tokens,
        too_short=before.too_short + header.not_counted.get("too_short", 0),
        lengths=before.lengths + arrays["length_histogram"],
        fired=added(before.fired, ids, arrays["requests_fired"]),
        feature_max=maximum,
        fit_n=moments.n,
        fit_sum=moments.total,
        fit_scatter=moments.scatter,
        sums=health.add(before.sums, health.of_window(window)),
        scores=with_scores(before.scores, arrays["request_scores"]),
        mag=None if before.mag is None else added(before.mag, ids, arrays["mag_sum"]),
        starts=before.starts + arrays.get("start_histogram", 0),
        segments=_segments_after(before.segments, header.segments),
        strata=strata_after(before.strata, window, requests),
        hours=before.hours.after(window, at_ms),
        of_requests=_with_cluster(before.of_requests, ids, arrays["requests_fired"], header.requests),
        of_tokens=_with_cluster(before.of_tokens, ids, arrays["tokens_fired"], header.tokens),
        of_groups=groups_after(before.of_groups, window),
        partitions=(*before.partitions, header.cut.partition),
        first_ms=before.first_ms,
        last_ms=at_ms,
        first_offset=before.first_offset,
        last_offset=offset,
    )


def _nothing(window: Window, at_ms: int, offset: int) -> Learned:
    d_sae, r = window.header.d_sae, len(window.arrays.get("fit_sum", ()))
    return Learned(
        d_in=window.header.d_in, requests=0, tokens=0, too_short=0,
        lengths=np.zeros_like(window.arrays["length_histogram"]),
        fired=np.zeros(d_sae, np.int64), feature_max=np.zeros(d_sae, np.float32),
        fit_n=0, fit_sum=np.zeros(r), fit_scatter=np.zeros((r, r)),
        sums=health.reset(health.of_window(window)), scores=(), mag=np.zeros(d_sae),
        segments={}, of_requests=_no_clusters(window, CLUSTER_REQUESTS), of_tokens=_no_clusters(window, 1),
        first_ms=at_ms, first_offset=offset,
    )  # fmt: skip


def _segments_after(before: dict[str, int] | None, more: dict[str, int] | None) -> dict[str, int] | None:
    """Of some requests alone there would be wrong shares."""
    return None if before is None or more is None else segments.added(before, more)


def _no_clusters(window: Window, at_least: int) -> DesignEffect | None:
    """*fit* looks for none: what holds for the baseline is asked of its own requests."""
    return None if window.header.projector_version == FIT else design_effect.initial(window.header.d_sae, at_least)


def _with_cluster(
    effect: DesignEffect | None, ids: NDArray[np.int32], fired: NDArray[np.integer], n: int
) -> DesignEffect | None:
    """With the counts of a window; one without a request is no cluster."""
    if effect is None or not n:
        return effect
    return design_effect.absorb(effect, added(np.zeros(len(effect.fired), np.int64), ids, fired), n)


def _merged(before: Learned, window: Window) -> Moments:
    arrays = window.arrays
    r = max(len(before.fit_sum), len(arrays.get("fit_sum", ())))
    moments = Moments(r)
    if before.fit_n:
        moments.merge(before.fit_n, before.fit_sum, before.fit_scatter)
    if "fit_sum" in arrays:
        scatter = unpack_scatter(arrays["fit_scatter"].astype(np.float32), r)
        moments.merge(window.header.sums.fit_tokens, arrays["fit_sum"].astype(np.float64), scatter)
    return moments


def make_projector(fit: Learned, lane: Lane, version: int, unit: UnitSettings, author: str = "detect") -> Versioned:
    """The projector that ends *fit*: unit and blocks, cap_f, surprise_f, the tokens' whitening, and compute_dtype."""
    mean, whitening, shrinkage = _whitening(fit)
    unit_tokens = unit.tokens or percentile(fit.lengths, UNIT_PERCENTILE)
    shorter = fit.lengths[1 : int(length_bins(np.array([unit_tokens]))[0])]  # so that their lengths move nothing
    projector = ProjectorHeader(
        lane=lane, version=version, unit_tokens=unit_tokens, blocks=unit.blocks,
        short_tokens=percentile(np.concatenate([[0], shorter]), UNIT_PERCENTILE) if shorter.any() else 1,
        error_every=min(ERROR_EVERY, unit_tokens), d_in=fit.d_in, d_sae=len(fit.fired), fit_requests=fit.requests,
        fit_tokens=fit.fit_n, shrinkage=shrinkage, kept_directions=len(whitening),
        compute_dtype=fit.proposed_dtype or FLOAT32,
    )  # fmt: skip
    cap = np.where(fit.feature_max > 0, fit.feature_max, 1.0).astype(np.float32)
    surprise = -np.log((fit.fired + 0.5) / (fit.requests + 1))  # nats of "it fires in a request"; finite for those new
    arrays = {
        "mean": mean.astype(np.float32), "whitening": whitening.astype(np.float32), "cap": cap,
        "surprise": surprise.astype(np.float32),
    }  # fmt: skip
    return make_control("projector", projector, arrays, author, f"fit of {fit.requests} requests")


def _whitening(fit: Learned) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Mean [r], whitening [kept, r] with ‖W(x − mean)‖² the squared Mahalanobis distance, and the shrinkage used."""
    r = len(fit.fit_sum)
    if fit.fit_n < 2:
        return np.zeros(r), np.zeros((0, r)), 0.0
    values, vectors = np.linalg.eigh(fit.fit_scatter / (fit.fit_n - 1))
    shrinkage = SHRINKAGE if fit.fit_n < ENOUGH_TOKENS_PER_COORDINATE * r else 0.0
    values = (1 - shrinkage) * values + shrinkage * values.mean()
    kept = values > EIGENVALUE_FLOOR * values.mean()
    return fit.fit_sum / fit.fit_n, (vectors[:, kept] / np.sqrt(values[kept])).T, shrinkage


def stationary(calibration: Learned, tolerance: float) -> float | None:
    """The p of the calibration scores for one distribution in their order; None where it is refused.

    A change within tolerance is none: the tests will allow it, too.
    """
    first = signed(next(scores for scores in calibration.scores if len(scores)))
    known = ~np.isnan(first).all(axis=0)  # a score that came with an update half-way is no change of the requests
    scores = signed(np.concatenate(calibration.scores))[:, known]
    found = stationarity.change(scores, _producers(calibration))
    return None if found.p <= stationarity.REFUSED and found.ratio > tolerance else found.p


def _producers(calibration: Learned) -> NDArray[np.int64]:
    """[requests] the input partition of each; one for all that a version learned which did not keep them."""
    known, sizes = list(calibration.partitions), [len(scores) for scores in calibration.scores]
    return np.repeat([-1] * (len(sizes) - len(known)) + known, sizes).astype(np.int64)


def make_baseline(
    calibration: Learned, lane: Lane, version: int, projector: ProjectorHeader, drift: DriftSettings, p: float
) -> Versioned:
    """The frozen baseline that ends *calibrate*; p of `stationary`."""
    values = health.scalars(calibration.sums, with_sae=projector.d_sae > 0)
    strata, effect = enough(calibration.strata), _estimated(calibration.of_requests)
    of_groups = _NOT_KNOWN if calibration.of_groups is None else calibration.of_groups.estimate()
    header = BaselineHeader(
        lane=lane, version=version, projector_version=projector.version, requests=calibration.requests,
        fit_requests=projector.fit_requests, tokens=calibration.tokens, too_short=calibration.too_short,
        provisional=calibration.requests + projector.fit_requests < PROVISIONAL_BELOW,
        explained_variance=values["explained_variance"], l0=values["l0"], norm=values["norm"] or 0.0,
        massive_share=values["massive_share"] or 0.0, compute_dtype=projector.compute_dtype,
        design_effect=_known(effect.deff), dependent=effect.dependent or of_groups.dependent,
        design_effect_of_groups=_known(of_groups.deff), dependent_groups=of_groups.dependent,
        design_effect_of_tokens=_known(_estimated(calibration.of_tokens).deff),
        unit_tokens=projector.unit_tokens, stationary_p=p,
        first_closed_at_ms=calibration.first_ms, last_closed_at_ms=calibration.last_ms,
        first_offset=calibration.first_offset, last_offset=calibration.last_offset, code_version=_CODE_VERSION,
        strata={name: learned.requests for name, learned in strata.items()}, segments=calibration.segments or {},
    )  # fmt: skip
    arrays: Arrays = {
        "requests_fired": calibration.fired,
        "calibration_scores": np.concatenate(calibration.scores),
        "length_histogram": calibration.lengths,
        "start_histogram": calibration.starts,
        **calibration.hours.frozen(),
    }
    if calibration.mag is not None:
        arrays["mag_sum"] = calibration.mag
    for name, learned in strata.items():
        arrays |= learned.frozen(name)
    header = structs.replace(header, sight=sight_of(header, arrays, drift))
    return make_control("baseline", header, arrays, "detect", f"calibration of {calibration.requests} requests")


def _estimated(effect: DesignEffect | None) -> design_effect.Estimate:
    return _NOT_KNOWN if effect is None else design_effect.estimate(effect)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None


def projector_of(baseline: BaselineHeader) -> ProjectorHeader:
    """What DETECT needs to know of the projector of a baseline from elsewhere."""
    return ProjectorHeader(
        lane=baseline.lane, version=baseline.projector_version, unit_tokens=baseline.unit_tokens, d_in=0, d_sae=0,
        fit_requests=baseline.fit_requests, fit_tokens=0, shrinkage=0.0, kept_directions=0,
        compute_dtype=baseline.compute_dtype,
    )  # fmt: skip
