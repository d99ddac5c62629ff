"""Output of the decoder from few fired features per token; the dense product is its slow twin."""

from __future__ import annotations

import torch
from torch.nn.functional import embedding_bag


def decode_sparse(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """`acts @ W_dec + b_dec` [n, d_out], reading only the rows of `W_dec` [d_sae, d_out] whose feature fired.

    A row of the result does not depend on the other rows. Takes 24 bytes of scratch for each fired entry.
    """
    tokens, features = acts.nonzero(as_tuple=True)
    first = torch.searchsorted(tokens, torch.arange(len(acts), device=acts.device))
    fired = acts[tokens, features]
    return embedding_bag(features, W_dec, first, mode="sum", per_sample_weights=fired).add_(b_dec)


def decode_dense(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """The same by one matrix product over all features."""
    return torch.addmm(b_dec, acts, W_dec)
