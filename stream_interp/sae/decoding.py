"""Output of the decoder from few fired features per token; the dense product is its slow twin."""

from __future__ import annotations

import torch
from torch.nn.functional import embedding_bag

from stream_interp.errors import SAELoadError
from stream_interp.sae.tensors import GATHER_BYTES, LazyTensor

_GROUP = 16  # one long float32 sum over 200 large terms was off by twice what the golden files allow


def decode_sparse(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """`acts @ W_dec + b_dec` [n, d_out], reading only the rows of `W_dec` [d_sae, d_out] whose feature fired.

    Sums in groups of 16 fired features of a token, in feature order, then over groups: a row of the result does not
    depend on the other rows. Scratch per token with f fired features: some 40·f bytes and f/16 rows of the output.
    """
    tokens, features = acts.nonzero(as_tuple=True)
    place_in_token = torch.arange(len(tokens), device=acts.device) - _starts(tokens, len(acts))[tokens]
    groups = (place_in_token % _GROUP == 0).nonzero().squeeze(1)
    sums = embedding_bag(features, W_dec, groups, mode="sum", per_sample_weights=acts[tokens, features])
    every_group = torch.arange(len(groups), device=acts.device)
    return embedding_bag(every_group, sums, _starts(tokens[groups], len(acts)), mode="sum").add_(b_dec)


def decode_from_file(acts: torch.Tensor, W_dec: LazyTensor, b_dec: torch.Tensor) -> torch.Tensor:
    """The same, bit for bit, where `W_dec` lies in a file: of it only rows whose feature fired are read.

    Holds some 32 MB of them at a time, or all of one token's.

    Raises:
        SAELoadError: a row that is not finite.
    """
    fired = acts.any(0).nonzero().squeeze(1)
    if len(fired) * W_dec.shape[1] * acts.itemsize > GATHER_BYTES and len(acts) > 1:
        return torch.cat([decode_from_file(half, W_dec, b_dec) for half in acts.tensor_split(2)])
    rows = W_dec.take(fired).to(acts)
    if not bool(rows.isfinite().all()):
        raise SAELoadError("not_finite", W_dec.origin, f"a decoder finite in {acts.dtype}", "other rows that fired")
    return decode_sparse(acts[:, fired], rows, b_dec)


def decode_dense(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """The same by one matrix product over all features."""
    return torch.addmm(b_dec, acts, W_dec)


def _starts(tokens: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Where each token's entries begin in the sorted `tokens`."""
    return torch.searchsorted(tokens, torch.arange(n_tokens, device=tokens.device))
