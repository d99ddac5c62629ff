"""Which features may fire, by an integer product: all that fire, and some more.

With u = (z - c)/s and v = s·W, rounded to integers q and, feature by feature, step·w, a pre-activation is

    z·W + b = q·(step·w) + (u - q)·v + q·(v - step·w) + (b + c·W),

and by Cauchy-Schwarz the terms in the middle are at most ‖u - q‖·‖v‖ + ‖q‖·‖v - step·w‖. That bound is itself a
product of one number of the token and one of the feature, twice; so these are further columns of the integer product,
rounded up, and what comes out is an upper bound of each pre-activation. s moves range from activations to weights
(arXiv 2211.10438). The kernel adds neighbours in 16 bits, so activations have 7 bits and weights 8.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, product
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_ZERO, _LOW, _HIGH = 64, -64, 63  # an activation of 0 as it is stored; the smallest and the largest
_WEIGHT = 127
_MIGRATIONS = (0.6, 0.7, 0.8, 0.9)  # of the activations' range to the weights
_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6)  # of the activations' range that 7 bits hold; what is beyond is off by more
_TRIED = 256  # tokens and features to choose among those by
_ROOM = 2.0  # of a token's norms over their median; beyond, the columns of the bound have no numbers
_MASSIVE = 4.0  # times the median norm: such tokens would take the scale from all others
NORM_ROUNDING = 1.001  # more than float32 loses in a sum of squares of 2^20 numbers
_LARGEST = 2.0**30  # of what the kernel turns into an int32
_ALIGNED = 4  # columns
_ENGINE = "fbgemm"
_PART = 1_024  # features at once
_PROBE = 64  # tokens and features of a trial


class _Features(NamedTuple):
    """Of a tile: `w` [n, d_in] int8; the rest [n] float64.

    `step`; `norm` ‖v‖ and `error` ‖v - step·w‖, in steps; `shift` c·W and what that may have rounded away.
    """

    w: torch.Tensor
    step: torch.Tensor
    norm: torch.Tensor
    error: torch.Tensor
    shift: torch.Tensor


class Rounded(NamedTuple):
    """Tokens in integers: `q` [n, columns] uint8, and `inside` [n] bool, for which the bound holds."""

    q: torch.Tensor
    inside: torch.Tensor


@dataclass(frozen=True)
class Int8Screen:
    """What is above 0 may fire. Made by `screen`."""

    tile: int  # features of a product
    centre: torch.Tensor  # [d_in] c
    scale: torch.Tensor  # [d_in] s
    token_steps: tuple[float, float]  # of ‖u - q‖ and ‖q‖ in their columns
    columns: tuple[int, int]  # how many each of them has
    unit: float  # of the output
    packed: tuple[Any, ...]  # the kernel's weights, tile by tile

    def rounded(self, z: torch.Tensor) -> Rounded:
        """`z` [n, d_in] float32."""
        u = (z - self.centre).div_(self.scale)
        d_in = z.shape[1]
        numbers = torch.zeros(len(z), _width(d_in, self.columns))
        q = torch.round(u, out=numbers[:, :d_in]).clamp_(_LOW, _HIGH)
        norm = q.norm(dim=1).mul_(NORM_ROUNDING)
        error = u.sub_(q).norm(dim=1).mul_(NORM_ROUNDING).add_(norm, alpha=1e-6)  # u was rounded, too
        inside = torch.ones(len(z), dtype=torch.bool)
        for value, step, columns in zip((error, norm), self.token_steps, self.columns, strict=True):
            steps = (value / step).ceil_()
            inside &= steps <= _HIGH
            numbers[:, d_in : d_in + columns] = steps.clamp_max_(_HIGH)[:, None]
            d_in += columns
        return Rounded(numbers.add_(_ZERO).nan_to_num_(_ZERO).to(torch.uint8), inside)

    def above(self, q: torch.Tensor, start: int) -> NDArray[np.uint8]:
        """[n, width] of the tile whose first feature is `start`: an entry that is not 0 may fire."""
        bound = torch.ops.quantized.linear(_activations(q), self.packed[start // self.tile], self.unit, 0)
        found: NDArray[np.uint8] = bound.int_repr().numpy()
        return found


def screen(W_rows: torch.Tensor, bias: torch.Tensor, sample: torch.Tensor, tile: int) -> Int8Screen | None:
    """A screen of an encoder; None where numbers are too large for the kernel's float32 and int32.

    Args:
        W_rows: [d_sae, d_in] float32.
        bias: [d_sae] float64, the bias less the threshold.
        sample: [n, d_in] float32, tokens to take the scales from. What is found is right whatever they are; its cost
            is not the same.
        tile: features of one product.
    """
    norm = sample.norm(dim=1)
    ordinary = sample[norm <= _MASSIVE * norm.median()]
    centre = ordinary.mean(0)
    scale = _scale(ordinary - centre, W_rows)
    u = (ordinary - centre) / scale
    q = u.round().clamp(_LOW, _HIGH)
    token_steps = (_token_step(u - q), _token_step(q))
    step = _steps(W_rows, scale)
    tiles = [
        _features(*of_tile, centre, scale)
        for of_tile in zip(torch.split(W_rows, tile), torch.split(step, tile), strict=True)
    ]
    if not all(bool(t.isfinite().all()) for t in (*chain(*tiles), centre, scale)):
        return None
    columns = _columns(tiles, token_steps)
    width = _width(W_rows.shape[1], columns)
    largest = _WEIGHT * -_LOW * width  # of a sum
    if 4 * largest > _LARGEST or 4 * largest * float(step.max()) > torch.finfo(torch.float32).max:
        return None
    unit = max(float(step.min()), float(step.max()) * 4 * largest / _LARGEST)
    with _engine():
        packed = tuple(
            _pack(
                _with_bounds(f, token_steps, columns, width), f.step, _floor(of_tile + f.shift, f.step, unit, largest)
            )
            for f, of_tile in zip(tiles, torch.split(bias, tile), strict=True)
        )
    return Int8Screen(tile, centre, scale, token_steps, columns, unit, packed)


def _width(d_in: int, columns: tuple[int, int]) -> int:
    return -(-(d_in + sum(columns)) // _ALIGNED) * _ALIGNED


def _scale(x: torch.Tensor, W_rows: torch.Tensor) -> torch.Tensor:
    """[d_in] s: the one of a few that gives centred tokens x [n, d_in] and some of the features the smallest bound."""
    largest = (x.abs().amax(0), W_rows.abs().amax(0))
    of_x, of_W = (peak.clamp_min(max(1e-3 * float(peak.median()), 1e-30)) for peak in largest)
    x, W_rows = x[:_TRIED], W_rows[:: -(-len(W_rows) // _TRIED)]
    tried = []
    for migration, share in product(_MIGRATIONS, _SHARES):
        scale = of_x**migration / of_W ** (1 - migration)
        scale *= (of_x / scale).max() / _HIGH * share
        u, v = x / scale, W_rows * scale
        q, step = u.round().clamp_(_LOW, _HIGH), v.abs().amax(1, keepdim=True).clamp_min(1e-30) / _WEIGHT
        errors = ((u - q).norm(dim=1), (v - (v / step).round() * step).norm(dim=1))
        bound = errors[0].mean() * v.norm(dim=1).mean() + q.norm(dim=1).mean() * errors[1].mean()
        tried.append((float(bound), scale))
    return min(tried, key=itemgetter(0))[1]


def _token_step(rows: torch.Tensor) -> float:
    return _ROOM * max(float(rows.norm(dim=1).median()), 1.0) / _HIGH


def _steps(W_rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """[d_sae] float64, of float32 as the kernel has them; of weights that are tiny, or 0, not so small as those."""
    peak = torch.cat([(rows * scale).abs().amax(1) for rows in torch.split(W_rows, _PART)]) / _WEIGHT
    return peak.clamp_min(max(1e-3 * float(peak.max()), 1e-30)).double()


def _features(rows: torch.Tensor, step: torch.Tensor, centre: torch.Tensor, scale: torch.Tensor) -> _Features:
    exact = rows.double()
    v = exact * scale.double()
    w = (v / step[:, None]).round_().clamp_(-_WEIGHT, _WEIGHT)
    error = (v - w * step[:, None]).norm(dim=1) / step
    shift, rounding = exact @ centre.double(), exact.abs() @ centre.double().abs() * (2.0**-52 * len(centre))
    return _Features(w.to(torch.int8), step, v.norm(dim=1) / step, error, shift + rounding)


def _columns(tiles: list[_Features], token_steps: tuple[float, float]) -> tuple[int, int]:
    """How many columns of _WEIGHT at most the factors of the bound take."""
    largest = (max(float(f.norm.max()) for f in tiles), max(float(f.error.max()) for f in tiles))
    of_norm, of_error = (int(np.ceil(x * step / _WEIGHT)) for x, step in zip(largest, token_steps, strict=True))
    return max(1, of_norm), max(1, of_error)


def _with_bounds(
    features: _Features, token_steps: tuple[float, float], columns: tuple[int, int], width: int
) -> torch.Tensor:
    """[n, width] int8: the weights, and the feature's factors of the bound in columns that add up to them."""
    weights, start = torch.zeros(len(features.w), width, dtype=torch.int8), features.w.shape[1]
    weights[:, :start] = features.w
    for factor, step, n in zip((features.norm, features.error), token_steps, columns, strict=True):
        weights[:, start : start + n] = (factor * step / n).ceil().clamp_max(_WEIGHT).to(torch.int8)[:, None]
        start += n
    return weights


def _floor(bias: torch.Tensor, step: torch.Tensor, unit: float, largest: int) -> torch.Tensor:
    """[n] float32: the bias, and as much more as the kernel's output and its float32 may round away.

    Beyond what a sum can be it decides alone, whatever its size; the kernel's int32 must not overflow.
    """
    in_steps = (bias / step).clamp(-2 * largest, 2 * largest)
    rounding = 2 + unit / step + (in_steps.abs() + largest) * 2.0**-22
    return ((in_steps + rounding) * step).float()


def _activations(q: torch.Tensor) -> torch.Tensor:
    return torch._make_per_tensor_quantized_tensor(q, 1.0, _ZERO)


def _pack(weights: torch.Tensor, step: torch.Tensor, bias: torch.Tensor) -> Any:
    zeros = torch.zeros(len(weights), dtype=torch.int64)
    quantised = torch._make_per_channel_quantized_tensor(weights, step, zeros, 0)
    return torch.ops.quantized.linear_prepack(quantised, bias)


@contextmanager
def _engine() -> Iterator[None]:
    """Weights are packed for the engine of the moment. Another one hangs on some machines."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once a process that quantised tensors will be removed one day
        torch.backends.quantized.engine = _ENGINE
        try:
            yield
        finally:
            torch.backends.quantized.engine = before


@cache
def available() -> bool:
    """Whether the kernel is here, and exact where sums in 16 bits would be largest."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(_LOW, _HIGH + 1, (_PROBE, 2 * _PROBE), generator=generator)
    w = torch.randint(-_WEIGHT, _WEIGHT + 1, (_PROBE, 2 * _PROBE), generator=generator)
    q[0], w[0], w[1] = _HIGH, _WEIGHT, -_WEIGHT
    try:
        with _engine():
            packed = _pack(w.to(torch.int8), torch.ones(_PROBE, dtype=torch.float64), torch.full((_PROBE,), -0.25))
            above = torch.ops.quantized.linear(_activations((q + _ZERO).to(torch.uint8)), packed, 0.5, 0).int_repr() > 0
    except (RuntimeError, AttributeError):
        return False
    return torch.equal(above, q @ w.T > 0)
