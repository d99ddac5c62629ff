"""What ENCODE works on: whole requests, and the shape that a lane gives to their statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.errors import UsageError
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import ProjectorHeader
from stream_interp.records.lane import Lane
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.records.window import ERROR_EVERY, FIT, FLOAT32
from stream_interp.sae.blocks import product

PROJECTIONS_BYTES = 512 * 1024 * 1024  # 16 MB a site at d_in 4,096; names and widths are the producers' to choose
MOMENT_BLOCK = 128  # rows of a product at once
_SQUARES_BLOCK = 512
MASSIVE_SHARE = 0.9  # of ‖x‖² in one coordinate; on real activations massive tokens start at 0.915, others end at 0.848
MASSIVE_MIN_D_IN = 256


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request whose chunks have all arrived.

    Attributes:
        acts: [n, d_in] float16 or float32.
        acts_out: [n, d_out], for transcoders.
        special_mask: [n] bool, true for tokens that are not counted.
        positions: [n] integers, of the tokens in what the producer took the request from; None: not known of all.
        group_key: of the requests that it hangs together with; empty: of none.
        segment: the part of the traffic that it names; empty: none.
        last_offset: offset of its last-arriving chunk; the cut that holds it counts the request.
    """

    request_id: str
    acts: NDArray[np.generic]
    acts_out: NDArray[np.generic] | None = None
    special_mask: NDArray[np.bool_] | None = None
    positions: NDArray[np.integer] | None = None
    group_key: str = ""
    segment: str = ""
    last_offset: int = 0


@dataclass(frozen=True, kw_only=True)
class LaneShape:
    """How a lane's requests become statistics. Without a projector its windows are fit windows.

    Attributes:
        unit_tokens: a request's first so many counted tokens make its indicators and scores; 0 = all of them.
        short_tokens: of a request of fewer than unit_tokens its first so many are judged; 0 = all of them.
        blocks: of unit_tokens tokens, the unit included, that are judged of a request that is long enough.
        mean, whitening: [r] and [kept, r] float64, None in fit.
        cap: [d_sae] float32, what a request's maximum is divided by; None in fit.
        surprise: [d_sae] float32, nats that each feature adds where it fires; None in fit, and where the projector was
            made before there was such a score.
        error_every: one of so many counted tokens enters the error terms.
        massive: rule for massive-activation tokens: `share`, `norm:LIMIT` or `off`.
        compute_dtype: what the SAE multiplies in, a name of `sae.precision`.
    """

    lane: Lane
    projector_version: int = FIT
    unit_tokens: int = 0
    blocks: int = 1
    short_tokens: int = 0
    error_every: int = ERROR_EVERY
    mean: torch.Tensor | None = None
    whitening: torch.Tensor | None = None
    cap: NDArray[np.float32] | None = None
    surprise: NDArray[np.float32] | None = None
    massive: str = "share"
    compute_dtype: str = FLOAT32


def shape_of(lane: Lane, projector: tuple[ProjectorHeader, Arrays] | None, massive: str = "share") -> LaneShape:
    """The shape that a projector record gives to its lane; without one, the shape of fit."""
    if projector is None:
        return LaneShape(lane=lane, massive=massive)
    header, arrays = projector
    return LaneShape(
        lane=lane,
        projector_version=header.version,
        unit_tokens=header.unit_tokens,
        blocks=header.blocks,
        short_tokens=header.short_tokens,
        error_every=header.error_every,
        mean=torch.from_numpy(arrays["mean"].astype(np.float64)),
        whitening=torch.from_numpy(arrays["whitening"].astype(np.float64)),
        cap=arrays["cap"].astype(np.float32) if header.d_sae else None,
        surprise=arrays["surprise"].astype(np.float32) if header.d_sae and "surprise" in arrays else None,
        massive=massive,
        compute_dtype=header.compute_dtype,
    )


class Squares(NamedTuple):
    """Of each token: ‖x‖² and max_j x_j², [n] float32."""

    total: NDArray[np.float32]
    largest: NDArray[np.float32]


def squares(x: NDArray[np.float32]) -> Squares:
    """Of the tokens `x` [n, d_in], a few at a time: they stay in the cache."""
    parts = [_squares(x[start : start + _SQUARES_BLOCK]) for start in range(0, max(len(x), 1), _SQUARES_BLOCK)]
    return Squares(*map(np.concatenate, zip(*parts, strict=True)))


def _squares(x: NDArray[np.float32]) -> Squares:
    largest = np.maximum(x.max(axis=1), -x.min(axis=1))
    return Squares(np.einsum("nj,nj->n", x, x), largest * largest)


def massive_tokens(of: Squares, d_in: int, rule: str) -> NDArray[np.bool_]:
    """Which tokens carry massive activations, [n] bool (design §4, "Window")."""
    kind, _, limit = rule.partition(":")
    if kind == "norm":
        return of.total > float(limit) ** 2
    if kind not in ("share", "off"):
        raise UsageError(f"sites.massive = {rule!r}: expected share, norm:LIMIT or off")
    if kind == "off" or d_in < MASSIVE_MIN_D_IN:
        return np.zeros_like(of.total, np.bool_)
    return of.largest > MASSIVE_SHARE * of.total


def moment_coordinates(x: torch.Tensor, lane: Lane) -> torch.Tensor:
    """`x` [n, d_in] in r = min(d_in, 1,024) coordinates [n, r]: itself, or random projections seeded by the site."""
    d_in = x.shape[1]
    if d_in <= MOMENT_COORDINATES:
        return x
    return product(x, _projections(f"{lane.tenant}/{lane.model_id}/{lane.hook_name}", d_in).to(x), MOMENT_BLOCK)


def _projections(site: str, d_in: int) -> torch.Tensor:
    """[d_in, 1,024]; the sites used last are kept, as many as PROJECTIONS_BYTES hold."""
    found = _kept.pop((site, d_in), None)
    projections = _new_projections(site, d_in) if found is None else found
    _kept[site, d_in] = projections
    while len(_kept) > 1 and sum(kept.nbytes for kept in _kept.values()) > PROJECTIONS_BYTES:
        del _kept[next(iter(_kept))]
    return projections


_kept: dict[tuple[str, int], torch.Tensor] = {}  # in order of use


def _new_projections(site: str, d_in: int) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    normal = np.random.Generator(np.random.Philox(seed)).standard_normal((d_in, MOMENT_COORDINATES), np.float32)
    return torch.from_numpy(normal / np.sqrt(np.float32(MOMENT_COORDINATES)))
