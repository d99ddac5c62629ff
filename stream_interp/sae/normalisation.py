"""Per-token normalisation of the input, undone on the output. A dataset-wide factor is folded at load instead."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stream_interp.sae.blocks import BLOCK_TOKENS, blocks
from stream_interp.sae.config import Normalisation

_LAYER_NORM_EPS = 1e-5


class Normalised(NamedTuple):
    """`x` [n, d_in] as the SAE sees it; an output becomes `output·scale + shift`, both [n, 1], None = leave it."""

    x: torch.Tensor
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None

    def undo(self, output: torch.Tensor) -> torch.Tensor:
        """Puts `output` [n, d_out] into the units of the raw input."""
        if self.scale is not None:
            output = output * self.scale
        return output if self.shift is None else output + self.shift

    def of(self, chosen: torch.Tensor | slice) -> Normalised:
        """Of some tokens, by their index."""
        scale, shift = (None if column is None else column[chosen] for column in self[1:])
        return Normalised(self.x[chosen], scale, shift)


def normalise(kind: Normalisation, x: torch.Tensor) -> Normalised:
    """Applies `kind` to `x` [n, d_in], in float32 or better. What is the same for every token was folded at load."""
    if kind in {"none", "expected_average_only_in", "mean_std"}:
        return Normalised(x)
    per_token = _layer_norm if kind.startswith("layer_norm") else _constant_norm
    wide = _at_least_float32(x)
    parts = [per_token(wide[:0])]  # in blocks: a device may sum a row in another order where there are more of them
    parts += [per_token(block).of(slice(rows)) for _, rows, block in blocks(wide, BLOCK_TOKENS)]
    all_x, *columns = zip(*parts, strict=True)
    scale, shift = (None if column[0] is None else torch.cat(column) for column in columns)
    return Normalised(torch.cat(all_x)) if kind.endswith("_in") else Normalised(torch.cat(all_x), scale, shift)


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _constant_norm(x: torch.Tensor) -> Normalised:
    norm = x.norm(dim=1, keepdim=True)
    root_d = x.shape[1] ** 0.5
    # A token of zeros stays zeros instead of becoming NaN: the factor must not overflow either.
    smallest = torch.finfo(x.dtype).tiny * root_d
    return Normalised(x * (root_d / norm.clamp_min(smallest)), scale=norm / root_d)


def _layer_norm(x: torch.Tensor) -> Normalised:
    mean = x.mean(dim=1, keepdim=True)
    centred = x - mean
    # n - 1, and eps on the way in only, as the publishing tools have it
    std = centred.norm(dim=1, keepdim=True) / max(1, x.shape[1] - 1) ** 0.5
    return Normalised(centred / (std + _LAYER_NORM_EPS), scale=std, shift=mean)
