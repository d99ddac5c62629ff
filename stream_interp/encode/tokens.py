"""The counted tokens of many requests in one matrix, and what is to be known of each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.requests import LaneShape, Request, massive_tokens, squares

Item = tuple[LaneShape, Request]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The counted tokens of n requests, t in all. Requests below unit_tokens have none here: nothing is made of them.

    Attributes:
        counts: [n] counted tokens of each request, of too short ones too.
        too_short: [n].
        x: [t, d_in] float32 on the device.
        target: [t, d_out], what the SAE explains: x, or of transcoders what the request brought along; None: nothing.
        sq_norm: [t] float32, ‖x‖².
        request: [t] the place of its request, ascending.
        in_unit: [t] among the first unit_tokens of its request.
        massive: [t].
        in_error: [t] of the sub-sample that the error terms are about: one of error_every tokens that are not massive.
    """

    counts: NDArray[np.int64]
    too_short: Bools
    x: torch.Tensor
    target: torch.Tensor | None
    sq_norm: NDArray[np.float32]
    request: NDArray[np.int64]
    in_unit: Bools
    massive: Bools
    in_error: Bools

    @classmethod
    def of(cls, items: Sequence[Item], device: str, explains: Literal["input", "output", "nothing"]) -> Tokens:
        """The tokens of requests of one width, in order, for an SAE that explains so much of them."""
        counts = np.array([_counted(request) for _, request in items], np.int64)
        units = np.array([shape.unit_tokens for shape, _ in items], np.int64)
        too_short = counts < np.maximum(units, 1)
        lengths = np.where(too_short, 0, counts)
        x = _matrix([_kept(r, r.acts) for _, r in items], too_short)
        target = x if explains == "input" else _target(items, too_short) if explains == "output" else None
        request = np.repeat(np.arange(len(items)), lengths)
        place = np.arange(len(request)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        of_x = squares(x.numpy())
        massive = np.zeros(len(request), np.bool_)
        for rule in {shape.massive for shape, _ in items}:
            ruled = np.array([shape.massive == rule for shape, _ in items])[request]
            massive |= ruled & massive_tokens(of_x, x.shape[1], rule)
        phases = np.array([_phase(shape, r) for shape, r in items], np.int64)[request]
        every = np.array([shape.error_every for shape, _ in items], np.int64)[request]
        return cls(
            counts=counts, too_short=too_short, x=x.to(device), sq_norm=of_x.total, request=request,
            target=None if target is None else target.to(device), massive=massive,
            in_unit=place < np.where(units == 0, counts, units)[request],
            in_error=(_ordinary_place(massive, lengths) % every == phases) & ~massive & (target is not None),
        )  # fmt: skip


def counted_acts(request: Request) -> NDArray[np.generic]:
    """The counted tokens [n, d_in] of a request, as they came."""
    return _kept(request, request.acts)


def encoded_tokens(shape: LaneShape, request: Request) -> int:
    """How many of a request's tokens there are in `Tokens`."""
    counted = _counted(request)
    return counted if counted >= max(shape.unit_tokens, 1) else 0


def _counted(request: Request) -> int:
    return len(request.acts) if request.special_mask is None else int((~request.special_mask).sum())


def _kept(request: Request, acts: NDArray[Any]) -> NDArray[Any]:
    return acts if request.special_mask is None else acts[~request.special_mask]


def _matrix(parts: Sequence[NDArray[Any]], too_short: Bools) -> torch.Tensor:
    chosen = [part for part, short in zip(parts, too_short, strict=True) if not short]
    return torch.from_numpy(np.concatenate(chosen or [parts[0][:0]])).float()


def _target(items: Sequence[Item], too_short: Bools) -> torch.Tensor | None:
    outs = [_kept(r, r.acts_out) for _, r in items if r.acts_out is not None]
    return _matrix(outs, too_short) if outs else None


def _ordinary_place(massive: Bools, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """[t]: how many tokens of its request before it are not massive: a massive first one costs no request its error."""
    ordinary = (~massive).astype(np.int64)
    before, some = np.cumsum(ordinary) - ordinary, lengths > 0
    starts = (np.cumsum(lengths) - lengths)[some]
    place: NDArray[np.int64] = before - np.repeat(before[starts], lengths[some])
    return place


def _phase(shape: LaneShape, request: Request) -> int:
    """Which of `error_every` neighbours is in the sub-sample: it depends on the request's id and nothing else."""
    digest = hashlib.blake2b(request.request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shape.error_every
