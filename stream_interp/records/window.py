"""`interp.windows`: the sufficient statistics of a closed group of requests of one lane, from one cut (design §4).

Mergeable sums and a few scores a request; nothing from which text could be rebuilt. A window larger than one
record is chunked in one transaction; its position is that of its last chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from stream_interp.errors import IntegrityError
from stream_interp.records.arrays import Arrays, pack, unpack
from stream_interp.records.chunks import split
from stream_interp.records.envelope import SAFETENSORS, Envelope, binary
from stream_interp.records.lane import Lane
from stream_interp.records.lengths import BINS
from stream_interp.records.segments import Segments

CE_TYPE = "interp.window.v1"
CHUNK_BYTES = 900_000  # below every default of max.message.bytes

MAX_WIDTH = 1 << 23  # of d_in and d_sae: whatever a header says becomes arrays of so many numbers

ERROR_EVERY = 20  # one of so many counted tokens is decoded for the error terms; less in short units

FLOAT32 = "float32"  # the compute_dtype of fit windows, and of records that say none

DTYPE_UNAVAILABLE = "dtype_unavailable"  # in not_counted: requests that this ENCODE has no way to encode as it must

FIT, CALIBRATED = 0, 1  # projector_version 0 is a fit window; ≥ 1 names the projector that shaped the window

DtypeName = Annotated[str, Meta(max_length=32)]

# A lane's strata: groups of its requests' tokens with baselines of their own. The unit is a request's first unit_tokens
# counted tokens, block k the k-th unit_tokens after them where a request has them all; `short` is the first
# short_tokens of a request that has those, but fewer than a unit.
UNIT, SHORT, BLOCK = "unit", "short", "block"

# Columns of `request_scores`. New ones come last: records of a version before have fewer, the first of these.
SCORES = ("mean_sq_norm", "mahalanobis_sq", "error_share", "l0", "massive_share", "surprise", "rarity")
SCORE_TITLES = {
    "mean_sq_norm": "mean squared norm of a token",
    "mahalanobis_sq": "distance of the mean token from that of the baseline",
    "error_share": "share of the activations that the SAE does not explain",
    "l0": "features that fire in a token",
    "massive_share": "share of tokens with one huge coordinate",
    "surprise": "how rare the features that fire are, in nats",
    "rarity": "how rare the features are of the set that fires, each once, in nats squared",
}

# name → (dtype, unit). Feature arrays [m] list only the features that fired; `feature_ids` says which.
ARRAYS = {
    "feature_ids": ("int32", "feature index, ascending"),
    "requests_fired": ("int32", "requests with the feature above threshold in their first unit_tokens counted tokens"),
    "tokens_fired": ("int64", "counted tokens above threshold"),
    "act_sum": ("float64", "activation units, counted tokens that are not massive"),
    "act_sq_sum": ("float64", "activation units squared, as act_sum"),
    "mag_sum": (
        "float64",
        "Σ over requests of min(request maximum / cap_f, 1); 0 in fit windows. The sum over firing requests is equal: "
        "one without the feature, or with it in massive tokens alone, adds 0",
    ),
    "request_max": ("float32", "largest request maximum, activation units; what cap_f comes from"),
    "request_scores": ("float32", f"[requests, {' | '.join(SCORES)}], log order; NaN: none; old: fewer columns"),
    "x_sum": ("float64", "[d_in], or of transcoders [d_out]: Σ over error tokens of what the SAE explains"),
    "length_histogram": ("int64", "requests by counted tokens, bins of `length_bins`"),
    "start_histogram": (
        "int64",
        "optional: requests by the position of their first counted token, same bins; short requests too",
    ),
    "group_requests": (
        "int64",
        "optional, calibrated windows: [256], requests that have a group, by the bucket of its hashed key",
    ),
    "group_cells": ("int32", "with it: bucket · k + place among the k features looked at, ascending"),
    "group_fired": ("int32", "with it: requests of that bucket with that feature above threshold, as requests_fired"),
    "fit_sum": ("float64", "[r], fit windows: Σ of the moment coordinates over counted tokens that are not massive"),
    "fit_scatter": ("float32", "[r·(r+1)/2], fit windows: upper triangle of the scatter about the window's own mean"),
}


STRATUM_ARRAYS = ("feature_ids", "requests_fired", "mag_sum", "request_scores")
ARRAYS |= {f"STRATUM.{n}": (ARRAYS[n][0], f"as {n}, of the requests and tokens in STRATUM") for n in STRATUM_ARRAYS}


class CutRef(Struct, frozen=True, kw_only=True):
    """The closed range `[a, b)` of one input partition that a window lies in."""

    topic: str
    partition: int
    a: int
    b: int


class LaneSums(Struct, frozen=True, kw_only=True):
    """Per-lane sums in float64, over the declared sub-sample of counted tokens that are not massive.

    Without an SAE x̂ is not known, and its sums are 0. Where an SAE has no reconstruction error (a layer of a
    cross-layer transcoder, a transcoder without acts_out) error_tokens and all sums about errors are 0.
    """

    error_tokens: int = 0  # tokens in the sums below
    x_sq_sum: float = 0.0  # Σ ‖x‖² (‖y‖² for transcoders)
    err_sq_sum: float = 0.0  # Σ ‖x − x̂‖²
    x_dot_xhat: float = 0.0
    xhat_sq_sum: float = 0.0
    l0_sum: float = 0.0  # Σ over counted tokens of features above threshold
    massive_tokens: int = 0
    norm_sum: float = 0.0  # Σ ‖x‖ over counted tokens that are not massive
    fit_tokens: int = 0  # tokens behind fit_sum and fit_scatter


class WindowHeader(Struct, frozen=True, kw_only=True):
    """What a window is about. `requests` are counted; `not_counted` has the lane's other records by reason."""

    schema_version: Literal[1] = 1
    lane: Lane
    cut: CutRef
    requests: int
    tokens: int
    not_counted: dict[str, int] = field(default_factory=dict)
    closed_at_ms: int
    acts_dtype: str
    compute_dtype: str = FLOAT32  # what the SAE multiplied in: the projector's, and in fit windows float32
    proposed_dtype: DtypeName = ""  # fit windows: what ENCODE proposes for the lane; empty until it has measured
    projector_version: int
    unit_tokens: int  # 0 in fit windows
    tier: Literal["T0", "T2"]
    sampling_rate: float = 1.0
    d_in: int
    d_sae: int  # 0 where only T0 runs
    sums: LaneSums
    strata: dict[str, int] = field(default_factory=dict)  # calibrated windows: requests by stratum, without the unit
    segments: Segments | None = None  # requests that name one, too short ones, too; None: of before they were counted

    @property
    def window_id(self) -> str:
        """Lane and cut: every window lies in exactly one cut."""
        c = self.cut
        return f"{self.lane.lane_id}@{c.topic}/{c.partition}[{c.a},{c.b})"


@dataclass(frozen=True)
class Window:
    """A window as `step` takes it."""

    header: WindowHeader
    arrays: Arrays


def widened(scores: NDArray[np.floating], columns: int) -> NDArray[np.float32]:
    """Request scores of any version, [n, any], as [n, columns]: NaN for scores that it did not know."""
    known = scores[:, :columns].astype(np.float32, copy=False)
    missing = columns - known.shape[1]
    return np.pad(known, ((0, 0), (0, missing)), constant_values=np.nan) if missing else known


def scores_of(window: Window) -> NDArray[np.float32]:
    """A window's request scores [n, len(SCORES)], whichever version wrote it."""
    return widened(window.arrays["request_scores"], len(SCORES))


def stratum_names(blocks: int) -> tuple[str, ...]:
    """The strata of a lane, the unit first."""
    return (UNIT, SHORT, *(f"{BLOCK}{k}" for k in range(1, blocks)))


def named(stratum: str, array: str) -> str:
    """What an array of a stratum is called in windows and baselines."""
    return array if stratum == UNIT else f"{stratum}.{array}"


def stratum_of(window: Window, stratum: str) -> tuple[int, Arrays]:
    """Requests of a window in a stratum, and what there is about them by the names that those of the unit have."""
    if stratum == UNIT:
        return window.header.requests, window.arrays
    if not (requests := window.header.strata.get(stratum, 0)):
        return 0, {name: window.arrays[name][:0] for name in STRATUM_ARRAYS}
    return requests, {name: window.arrays[named(stratum, name)] for name in STRATUM_ARRAYS}


def encode_window(window: Window, chunk_bytes: int = CHUNK_BYTES) -> list[Envelope]:
    """The records of a window, in the order to produce them."""
    parts = split(pack(window.header, window.arrays), chunk_bytes)
    key, window_id = window.header.lane.lane_id, window.header.window_id
    return [
        binary(
            key,
            CE_TYPE,
            SAFETENSORS,
            part,
            id=f"{window_id}#{k}",
            source="/encode",
            window=window_id,
            chunk=k,
            chunks=len(parts),
        )
        for k, part in enumerate(parts)
    ]


def decode_window(data: bytes) -> Window:
    """A window from its joined parts. Raises IntegrityError."""
    header, arrays = unpack(data, WindowHeader)
    if not (0 <= header.d_in <= MAX_WIDTH and 0 <= header.d_sae <= MAX_WIDTH):
        raise IntegrityError(
            f"a window of d_in {header.d_in}, d_sae {header.d_sae}; expected at most {MAX_WIDTH:,}: few bytes must not "
            "fill the memory"
        )
    for name in ("length_histogram", "start_histogram"):
        if name in arrays and arrays[name].shape != (BINS,):
            raise IntegrityError(f"a window with a {name} of shape {list(arrays[name].shape)}; expected [{BINS}]")
    named_one, counted = sum((header.segments or {}).values()), arrays.get("length_histogram", np.zeros(BINS)).sum()
    if named_one > counted:  # they would stay, and no baseline could be made of them
        raise IntegrityError(f"a window of {counted} requests, {named_one} by their segments; expected no more")
    for stratum, requests in {UNIT: header.requests, **header.strata}.items():
        scored = len(arrays.get(named(stratum, "request_scores"), ()))
        if scored != requests:
            raise IntegrityError(
                f"a window of {requests} requests ({stratum}) with scores of {scored}; expected as many"
            )
    return Window(header, arrays)
