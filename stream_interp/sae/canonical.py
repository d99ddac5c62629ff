"""One form for every SAE: a matrix product with bias, a threshold (or the k largest), a matrix product with bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stream_interp.sae.config import Normalisation
from stream_interp.sae.tensors import LazyTensor


@dataclass(frozen=True)
class Canonical:
    """acts = p where p > threshold, else 0; p = z @ W_enc + b_enc; z = x, normalised per token.

    Gated, with `magnitude` = (gain, offset): acts = relu(p·gain + offset) where p > threshold; folding the gain into
    `W_enc` would lose the gate to rounding. The output is acts @ W_dec + b_dec and, with `W_skip`, + x @ W_skip.

    Shapes: `W_enc` [d_in, d_sae], `b_enc`, `threshold`, gain and offset [d_sae], `W_dec` [d_sae, d_out], `b_dec`
    [d_out], `W_skip` [d_in, d_out], one dtype and device. With `k`, all but the k largest p of a token are dropped
    first, or with `grouped` all but the largest of each of k groups of neighbours. Where a threshold is negative, acts
    are; p >= t is p > the number just below t. `centre` [d_in] float32 is subtracted from z before it is rounded to
    less than float32; otherwise it is part of `b_enc`, and costs nothing. `W_dec` may lie in a file, as it is stored
    there; a layer of a cross-layer transcoder has none, and no `b_dec`.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    threshold: torch.Tensor
    W_dec: torch.Tensor | LazyTensor | None
    b_dec: torch.Tensor | None
    W_skip: torch.Tensor | None
    magnitude: tuple[torch.Tensor, torch.Tensor] | None  # gain and offset, [d_sae] each
    k: int | None
    grouped: bool
    normalisation: Normalisation
    centre: torch.Tensor | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All parameters that are in memory; not `centre`, which is `b_dec` or as small."""
        decoder = (self.W_dec, self.b_dec, self.W_skip)
        held = (tensor for tensor in decoder if isinstance(tensor, torch.Tensor))
        return self.W_enc, self.b_enc, self.threshold, *(self.magnitude or ()), *held
