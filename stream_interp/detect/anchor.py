"""Has a lane crept away from its anchor, baseline by baseline, in steps too small to alarm? (design §4)

The anchor of a lane is the baseline that an operator approved last, or else its first. Every later one is compared with
it: a rate or a score has crept where the exact intervals of both baselines lie more than `drift.tolerance` apart, so
that the noise of two small baselines opens nothing. All intervals of a comparison hold with probability 1 − DELTA;
those of rates are widened by the design effect where requests depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift.esr import Floats
from stream_interp.drift.intervals import DELTA, clopper_pearson, quantile_interval, vouched_ratio
from stream_interp.errors import IntegrityError
from stream_interp.records.alert import BaselineCreep, Crept
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader
from stream_interp.records.window import SCORES

# What no projector scales, so that it means the same in both: norm, what the SAE leaves unexplained, L0. Caps and
# whitening are fitted anew with each baseline, and magnitudes, mahalanobis_sq and surprise with them.
COMPARED_SCORES = ("mean_sq_norm", "error_share", "l0")
QUANTILES = (0.5, 0.9)
TOP_FEATURES = 20
_LARGEST_RATIO = 1e6  # of a score that was 0


@dataclass(frozen=True)
class Anchor:
    """What is kept of a baseline to compare later ones with.

    Attributes:
        widened_by: so many requests tell of a rate what one independent request does.
        unit_tokens: 0 in baselines of before they said so.
        fired: [d_sae] int64, requests in which each feature fired.
        scores: [len(COMPARED_SCORES), len(QUANTILES), 3] lower bound, value and upper bound; NaN where there is none.
    """

    version: int
    requests: int
    widened_by: float
    unit_tokens: int
    fired: NDArray[np.int64]
    scores: Floats


def kept(header: BaselineHeader, arrays: Arrays) -> Anchor:
    """What to keep of a baseline."""
    alpha = DELTA / 2 / (4 * len(COMPARED_SCORES) * len(QUANTILES))
    scores = np.full((len(COMPARED_SCORES), len(QUANTILES), 3), np.nan)
    for i, name in enumerate(COMPARED_SCORES):
        column = arrays["calibration_scores"][:, SCORES.index(name)]
        known = np.sort(column[np.isfinite(column)]).astype(np.float64)
        for j, q in enumerate(QUANTILES if len(known) else ()):
            low, high = quantile_interval(known, q, alpha)
            scores[i, j] = low, np.quantile(known, q), high
    return Anchor(
        version=header.version, requests=header.requests, widened_by=header.widened_by, unit_tokens=header.unit_tokens,
        fired=arrays["requests_fired"], scores=scores,
    )  # fmt: skip


def crept(anchor: Anchor, header: BaselineHeader, arrays: Arrays, tolerance: float) -> BaselineCreep | None:
    """What of a baseline lies more than `tolerance` from the anchor; None where nothing does.

    Raises:
        IntegrityError: it has another number of features.
    """
    now = kept(header, arrays)
    features, scores = _features(anchor, now, tolerance), _scores(anchor, now, tolerance)
    if not features and not scores:
        return None
    return BaselineCreep(anchor=anchor.version, features=len(features), moved=[*scores, *features[:TOP_FEATURES]])


def _features(anchor: Anchor, now: Anchor, tolerance: float) -> list[Crept]:
    """Those that crept, the largest vouched-for ratio first."""
    if anchor.fired.shape != now.fired.shape:
        raise IntegrityError(
            f"baseline {now.version} has {len(now.fired)} features, the lane's anchor {len(anchor.fired)}; expected "
            "the same SAE in both: it was not made for this lane"
        )
    alpha = DELTA / 2 / max(4 * len(now.fired), 1)
    before, after = (
        clopper_pearson(of.fired / of.widened_by, of.requests / of.widened_by, alpha) for of in (anchor, now)
    )
    ratio = vouched_ratio(before, after)
    order = np.argsort(-ratio, kind="stable")
    return [
        Crept(
            feature=int(f), of="rate", anchor=float(anchor.fired[f] / anchor.requests),
            now=float(now.fired[f] / now.requests), at_least=float(ratio[f]),
        )
        for f in order[: int((ratio > tolerance * _by_length(anchor, now)).sum())]
    ]  # fmt: skip


def _by_length(anchor: Anchor, now: Anchor) -> float:
    """By how much rates may differ because a unit has another length: c times as many tokens fire at most c times."""
    lengths = anchor.unit_tokens, now.unit_tokens
    return max(lengths) / min(lengths) if all(lengths) else 1.0


def _scores(anchor: Anchor, now: Anchor, tolerance: float) -> list[Crept]:
    before, after = ((of.scores[..., 0], of.scores[..., 2]) for of in (anchor, now))
    ratio = vouched_ratio(before, after)
    return [
        Crept(
            of=f"{COMPARED_SCORES[i]}, quantile {QUANTILES[j]:g}", anchor=float(anchor.scores[i, j, 1]),
            now=float(now.scores[i, j, 1]), at_least=float(min(ratio[i, j], _LARGEST_RATIO)),
        )
        for i, j in np.argwhere(ratio > tolerance)
    ]  # fmt: skip
