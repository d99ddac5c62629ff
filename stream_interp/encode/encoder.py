"""Requests of many partitions and lanes → statistics a request, with one GEMM for all of them.

The only place where activations become numbers that leave ENCODE. No loop over tokens or features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.requests import LaneShape, Request, massive_tokens, moment_coordinates
from stream_interp.records.window import SCORES

ROUNDING = 1e-6  # an error share below it is float32 rounding, which differs between batch sizes and devices
DENSE_BYTES = 256 * 1024 * 1024  # feature activations held at once, [tokens, d_sae] float32


class Encoder(Protocol):
    """What ENCODE needs of an SAE."""

    @property
    def d_in(self) -> int:
        """Width of the activations."""

    @property
    def d_sae(self) -> int:
        """Number of features."""

    @property
    def fingerprint(self) -> str:
        """sha256 of its canonical weights."""

    @property
    def explains(self) -> Literal["input", "output", "nothing"]:
        """What its reconstruction is of: the input, another hook's activations, or it has none."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [n, d_in] → feature activations [n, d_sae], zero where not firing."""

    def reconstruct_from(self, x: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        """The reconstruction [n, d_out] in the space of the raw activations."""


@dataclass(frozen=True, kw_only=True)
class RequestStats:
    """What one request adds to its window. Feature arrays [m] list the features that fired in it.

    Attributes:
        fired: [m] bool, fired in the first unit_tokens counted tokens.
        maximum: [m] float32, largest activation in those tokens, massive tokens left out.
        sums: float64, in the order of `SUMS`.
        x_sum: [d_in] float64 over counted tokens that are not massive.
        scores: [len(SCORES)] float32.
        moments: [k, r] float32 tokens for the fit moments; None once the lane has a projector.
    """

    shape: LaneShape
    tokens: int
    too_short: bool
    feature_ids: NDArray[np.int32]
    fired: NDArray[np.bool_]
    tokens_fired: NDArray[np.int64]
    act_sum: NDArray[np.float64]
    act_sq_sum: NDArray[np.float64]
    maximum: NDArray[np.float32]
    magnitude: NDArray[np.float32]
    sums: NDArray[np.float64]
    x_sum: NDArray[np.float64]
    scores: NDArray[np.float32]
    moments: torch.Tensor | None


SUMS = ("error_tokens", "x_sq_sum", "err_sq_sum", "x_dot_xhat", "xhat_sq_sum", "l0_sum", "massive_tokens", "norm_sum")


@torch.inference_mode()
def encode_batch(
    sae: Encoder | None, items: Sequence[tuple[LaneShape, Request]], device: str = "cpu"
) -> list[RequestStats]:
    """Statistics of each request, in the order given. All of one SAE (None: T0 only) and one d_in."""
    if not items:
        return []
    tokens = _Tokens.of(items, device)
    per_token = _per_token(sae, tokens)
    features = _Features.of(per_token, tokens, sae.d_sae if sae else 0)
    sums, scores = _sums(per_token, tokens), _scores(per_token, tokens, sae is not None)
    x_sum = torch.zeros(len(items), tokens.x.shape[1], dtype=torch.float64, device=device)
    x_sum.index_add_(0, tokens.request[~tokens.massive], tokens.x[~tokens.massive].double())
    return _split(items, tokens, features, sums.cpu().numpy(), scores.cpu().numpy(), x_sum.cpu().numpy())


@dataclass(frozen=True)
class _Tokens:
    """Counted tokens of all requests: x [n, d_in] float32, the request of each, whether it is of the unit, massive."""

    x: torch.Tensor
    x_out: torch.Tensor | None
    request: torch.Tensor
    in_unit: torch.Tensor
    massive: torch.Tensor
    counts: NDArray[np.int64]
    too_short: NDArray[np.bool_]

    @classmethod
    def of(cls, items: Sequence[tuple[LaneShape, Request]], device: str) -> _Tokens:
        kept = [slice(None) if r.special_mask is None else ~r.special_mask for _, r in items]
        acts = [r.acts[k] for (_, r), k in zip(items, kept, strict=True)]
        counts = np.array([len(a) for a in acts], np.int64)
        units = np.array([shape.unit_tokens for shape, _ in items], np.int64)
        position = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        too_short = counts < np.maximum(units, 1)
        x = torch.from_numpy(np.concatenate(acts)).to(device).float()
        outs = [r.acts_out[k] for (_, r), k in zip(items, kept, strict=True) if r.acts_out is not None]
        request = torch.from_numpy(np.repeat(np.arange(len(items)), counts)).to(device)
        massive = torch.zeros(len(x), dtype=torch.bool, device=device)
        for rule in {shape.massive for shape, _ in items}:
            ruled = torch.tensor([shape.massive == rule for shape, _ in items], device=device)[request]
            massive |= ruled & massive_tokens(x, rule)
        return cls(
            x=x,
            x_out=torch.from_numpy(np.concatenate(outs)).to(device).float() if len(outs) == len(items) else None,
            request=request,
            in_unit=torch.from_numpy(position < np.repeat(np.where(units == 0, counts, units), counts)).to(device),
            massive=massive,
            counts=counts,
            too_short=too_short,
        )

    def moments(self, of_request: slice, shape: LaneShape) -> torch.Tensor:
        """[k, r]: the tokens of one request that enter the fit moments."""
        return moment_coordinates(self.x[of_request][~self.massive[of_request]], shape.lane)


@dataclass(frozen=True)
class _PerToken:
    """Per token, [n]: ‖x‖² (of the target), ‖e‖², ⟨x,x̂⟩, ‖x̂‖², L0; and the firings (token, feature, value).

    Where there is nothing to compare a reconstruction with, or there is none, the first four are zeros.
    """

    sq_norm: torch.Tensor
    target_sq: torch.Tensor
    err_sq: torch.Tensor
    dot: torch.Tensor
    xhat_sq: torch.Tensor
    l0: torch.Tensor
    token: torch.Tensor
    feature: torch.Tensor
    value: torch.Tensor


def _per_token(sae: Encoder | None, tokens: _Tokens) -> _PerToken:
    x, n = tokens.x, len(tokens.x)
    sq_norm = x.square().sum(1)
    none = torch.zeros(n, device=x.device)
    empty = torch.zeros(0, dtype=torch.int64, device=x.device)
    if sae is None:
        return _PerToken(sq_norm, sq_norm, none, none, none, none, empty, empty, empty.float())
    target = x if tokens.x_out is None else tokens.x_out
    is_explained = sae.explains == "input" or (sae.explains == "output" and tokens.x_out is not None)
    step = max(1, DENSE_BYTES // (4 * sae.d_sae))
    parts = []
    for start in range(0, max(n, 1), step):  # once without tokens: requests of special tokens alone
        z = x[start : start + step]
        acts = sae.encode(z)
        if is_explained:
            y, xhat = target[start : start + step], sae.reconstruct_from(z, acts)
            errors = (y.square().sum(1), (y - xhat).square().sum(1), (y * xhat).sum(1), xhat.square().sum(1))
        else:
            errors = (none[start : start + step],) * 4
        token, feature = acts.nonzero(as_tuple=True)
        l0 = torch.bincount(token, minlength=len(z)).float()
        parts.append((*errors, l0, token + start, feature, acts[token, feature]))
    return _PerToken(sq_norm, *(torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class _Features:
    """Firings grouped by (request, feature), ordered by request then feature; `start` [requests + 1] bounds each."""

    start: NDArray[np.int64]
    ids: NDArray[np.int32]
    fired: NDArray[np.bool_]
    tokens_fired: NDArray[np.int64]
    act_sum: NDArray[np.float64]
    act_sq_sum: NDArray[np.float64]
    maximum: NDArray[np.float32]

    @classmethod
    def of(cls, firings: _PerToken, tokens: _Tokens, d_sae: int) -> _Features:
        request = tokens.request[firings.token]
        keys, pair = torch.unique(request * max(d_sae, 1) + firings.feature, return_inverse=True)
        m = len(keys)
        in_unit = tokens.in_unit[firings.token]
        value = firings.value.double() * ~tokens.massive[firings.token]
        zeros = torch.zeros(m, dtype=torch.float64, device=keys.device)
        fired = zeros.scatter_reduce(0, pair, in_unit.double(), "amax")
        maximum = zeros.scatter_reduce(0, pair, value * in_unit, "amax")
        bounds = torch.arange(len(tokens.counts) + 1, device=keys.device) * max(d_sae, 1)
        return cls(
            start=torch.searchsorted(keys, bounds).cpu().numpy(),
            ids=(keys % max(d_sae, 1)).to(torch.int32).cpu().numpy(),
            fired=(fired > 0).cpu().numpy(),
            tokens_fired=torch.bincount(pair, minlength=m).cpu().numpy(),
            act_sum=zeros.index_add(0, pair, value).cpu().numpy(),
            act_sq_sum=zeros.index_add(0, pair, value.square()).cpu().numpy(),
            maximum=maximum.float().cpu().numpy(),
        )


def _by_request(tokens: _Tokens, values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Sums [requests] float64 of a per-token value where a mask holds."""
    total = torch.zeros(len(tokens.counts), dtype=torch.float64, device=values.device)
    return total.index_add_(0, tokens.request[where], values[where].double())


def _sums(per_token: _PerToken, tokens: _Tokens) -> torch.Tensor:
    """[requests, len(SUMS)] float64 over all counted tokens; error terms without massive ones."""
    ordinary, every = ~tokens.massive, torch.ones_like(tokens.massive)
    p = per_token
    error_terms = (torch.ones_like(p.sq_norm), p.target_sq, p.err_sq, p.dot, p.xhat_sq)
    columns = [_by_request(tokens, v, ordinary) for v in error_terms]
    columns += [_by_request(tokens, p.l0, every), _by_request(tokens, tokens.massive, every)]
    columns += [_by_request(tokens, p.sq_norm.sqrt(), ordinary)]
    return torch.stack(columns, 1)


def _scores(per_token: _PerToken, tokens: _Tokens, has_sae: bool) -> torch.Tensor:
    """[requests, len(SCORES)] float32 over the unit; NaN where a score has no token or no SAE. Mahalanobis: later."""
    unit, ordinary = tokens.in_unit, tokens.in_unit & ~tokens.massive
    one = torch.ones_like(per_token.sq_norm)
    n_ordinary, n_unit = _by_request(tokens, one, ordinary), _by_request(tokens, one, unit)
    target_sq, none = _by_request(tokens, per_token.target_sq, ordinary), torch.full_like(n_unit, float("nan"))
    columns = {
        "mean_sq_norm": _by_request(tokens, per_token.sq_norm, ordinary) / n_ordinary,
        "mahalanobis_sq": none,
        # NaN where the target is zeros, and so where there is none
        "error_share": (_by_request(tokens, per_token.err_sq, ordinary) / target_sq).clamp_min(ROUNDING)
        if has_sae
        else none,
        "l0": _by_request(tokens, per_token.l0, unit) / n_unit if has_sae else none,
        "massive_share": _by_request(tokens, tokens.massive, unit) / n_unit,
    }
    return torch.stack([columns[name] for name in SCORES], 1).float()


def _mahalanobis(items: Sequence[tuple[LaneShape, Request]], tokens: _Tokens) -> NDArray[np.float32]:
    """[requests]: squared Mahalanobis distance of each request's mean in its lane's whitened directions."""
    ordinary = tokens.in_unit & ~tokens.massive
    n = _by_request(tokens, torch.ones_like(ordinary), ordinary)
    total = torch.zeros(len(items), tokens.x.shape[1], dtype=torch.float64, device=tokens.x.device)
    mean = total.index_add_(0, tokens.request[ordinary], tokens.x[ordinary].double()) / n[:, None]
    distance = np.full(len(items), np.nan, np.float32)
    for shape in {id(shape): shape for shape, _ in items}.values():  # a handful of lanes
        if shape.mean is not None and shape.whitening is not None and len(shape.whitening):
            rows = np.array([i for i, (s, _) in enumerate(items) if s is shape])
            centred = moment_coordinates(mean[rows], shape.lane) - shape.mean.to(mean.device)
            distance[rows] = (centred @ shape.whitening.to(mean.device).T).square().sum(1).float().cpu().numpy()
    return distance


def _split(
    items: Sequence[tuple[LaneShape, Request]],
    tokens: _Tokens,
    features: _Features,
    sums: NDArray[np.float64],
    scores: NDArray[np.float32],
    x_sum: NDArray[np.float64],
) -> list[RequestStats]:
    """One RequestStats for each request."""
    ends = np.cumsum(tokens.counts)
    scores[:, SCORES.index("mahalanobis_sq")] = _mahalanobis(items, tokens)
    stats = []
    for i, (shape, _) in enumerate(items):
        of_request = slice(int(ends[i] - tokens.counts[i]), int(ends[i]))
        own = slice(int(features.start[i]), int(features.start[i + 1]))
        ids, maximum = features.ids[own], features.maximum[own]
        cap = np.ones(1, np.float32) if shape.cap is None else shape.cap[ids]
        stats.append(
            RequestStats(
                shape=shape, tokens=int(tokens.counts[i]), too_short=bool(tokens.too_short[i]), feature_ids=ids,
                fired=features.fired[own], tokens_fired=features.tokens_fired[own], act_sum=features.act_sum[own],
                act_sq_sum=features.act_sq_sum[own], maximum=maximum,
                magnitude=np.minimum(maximum / cap, 1) if shape.cap is not None else np.zeros_like(maximum),
                sums=sums[i], x_sum=x_sum[i], scores=scores[i],
                moments=None if shape.projector_version else tokens.moments(of_request, shape),
            )
        )  # fmt: skip
    return stats
