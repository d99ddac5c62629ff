"""One form for every SAE: a matrix product with bias, a threshold (or the k largest), a matrix product with bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stream_interp.sae.config import Normalisation


@dataclass(frozen=True)
class Canonical:
    """acts = p where p > threshold, else 0; p = z @ W_enc + b_enc; z = x, normalised per token.

    Gated, with `magnitude` = (gain, offset): acts = relu(p·gain + offset) where p > threshold; folding the gain into
    `W_enc` would lose the gate to rounding. The output is acts @ W_dec + b_dec and, with `W_skip`, + x @ W_skip.

    Shapes: `W_enc` [d_in, d_sae], `b_enc`, `threshold`, gain and offset [d_sae], `W_dec` [d_sae, d_out], `b_dec`
    [d_out], `W_skip` [d_in, d_out], one dtype and device; threshold >= 0 unless gated. With `k`, all but the k largest
    p of a token are dropped first, or with `grouped` all but the largest of each of k groups of neighbours.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    threshold: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    W_skip: torch.Tensor | None
    magnitude: tuple[torch.Tensor, torch.Tensor] | None  # gain and offset, [d_sae] each
    k: int | None
    grouped: bool
    normalisation: Normalisation

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All parameters."""
        skip = () if self.W_skip is None else (self.W_skip,)
        return self.W_enc, self.b_enc, self.threshold, self.W_dec, self.b_dec, *(self.magnitude or ()), *skip
