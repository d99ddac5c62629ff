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
from stream_interp.encode.spans import Groups, Ints, Spans

Item = tuple[LaneShape, Request]
Bools = NDArray[np.bool_]

_LAST_POSITION = 2**31 - 1  # positions are the producers': any integer


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The counted tokens of n requests, t in all.

    Attributes:
        counts: [n] counted tokens of each request.
        starts: [n] position of the first of them, -1 where there is none.
        too_short: [n] below unit_tokens, or without any token.
        x: [t, d_in] float32.
        target: [t, d_out], what the SAE explains: x, or of transcoders what the request brought along; None: nothing.
        sq_norm: [t] float32, ‖x‖².
        request: [t] the place of its request, ascending.
        spans: which are judged together.
        massive: [t].
        in_error: [t] of the sub-sample that the error terms are about: one of error_every tokens that are not massive.
    """

    counts: Ints
    starts: Ints
    too_short: Bools
    x: torch.Tensor
    target: torch.Tensor | None
    sq_norm: NDArray[np.float32]
    request: Ints
    spans: Spans
    massive: Bools
    in_error: Bools

    @property
    def requests(self) -> Groups:
        """The request of each token."""
        return Groups(self.request, len(self.counts))

    @classmethod
    def of(cls, items: Sequence[Item], explains: Literal["input", "output", "nothing"]) -> Tokens:
        """The tokens of requests of one width, in order, for an SAE that explains so much of them."""
        counts = np.array([counted(request) for _, request in items], np.int64)
        units, blocks, shorts = (
            np.array([(shape.unit_tokens, shape.blocks, shape.short_tokens) for shape, _ in items], np.int64)
            .reshape(-1, 3)
            .T
        )
        x = _matrix([_kept(r, r.acts) for _, r in items])
        target = x if explains == "input" else _target(items) if explains == "output" else None
        request = np.repeat(np.arange(len(items)), counts)
        place = np.arange(len(request)) - np.repeat(np.cumsum(counts) - counts, counts)
        of_x = squares(x.numpy())
        massive = np.zeros(len(request), np.bool_)
        for rule in {shape.massive for shape, _ in items}:
            ruled = np.array([shape.massive == rule for shape, _ in items])[request]
            massive |= ruled & massive_tokens(of_x, x.shape[1], rule)
        phases = np.array([_phase(shape, r) for shape, r in items], np.int64)[request]
        every = np.array([shape.error_every for shape, _ in items], np.int64)[request]
        return cls(
            counts=counts, starts=np.array([_start(r, n) for (_, r), n in zip(items, counts, strict=True)], np.int64),
            too_short=counts < np.maximum(units, 1), x=x, sq_norm=of_x.total, request=request,
            target=target, massive=massive,
            spans=Spans.of(units, blocks, shorts, counts, request, place),
            in_error=(_ordinary_place(massive, counts) % every == phases) & ~massive & (target is not None),
        )  # fmt: skip


def counted_acts(request: Request) -> NDArray[np.generic]:
    """The counted tokens [n, d_in] of a request, as they came."""
    return _kept(request, request.acts)


def counted(request: Request) -> int:
    """How many of a request's tokens are counted."""
    return len(request.acts) if request.special_mask is None else int((~request.special_mask).sum())


def _kept(request: Request, acts: NDArray[Any]) -> NDArray[Any]:
    return acts if request.special_mask is None else acts[~request.special_mask]


def _start(request: Request, counts: int) -> int:
    """Position of the first counted token; its place in the request where that is not known; -1 without one."""
    if not counts:
        return -1
    first = 0 if request.special_mask is None else int(np.argmin(request.special_mask))
    position = first if request.positions is None else int(request.positions[first])
    return min(max(position, 0), _LAST_POSITION)


def _matrix(parts: Sequence[NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts)).float()


def _target(items: Sequence[Item]) -> torch.Tensor | None:
    outs = [_kept(r, r.acts_out) for _, r in items if r.acts_out is not None]
    return _matrix(outs) if outs else None


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
