"""Output of the decoder from few fired features per token; the dense product is its slow twin."""

from __future__ import annotations

import torch
from torch.nn.functional import embedding_bag

from stream_interp.errors import SAELoadError
from stream_interp.sae.firings import Firings
from stream_interp.sae.tensors import GATHER_BYTES, LazyTensor

_GROUP = 16  # one long float32 sum over 200 large terms was off by twice what the golden files allow


def decode_fired(fired: Firings, n: int, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """`acts @ W_dec + b_dec` [n, d_out], reading only the rows of `W_dec` [d_sae, d_out] whose feature fired.

    Sums in groups of 16 fired features of a token, in feature order, then over groups: a row of the result does not
    depend on the other rows. Scratch per token with f fired features: some 40·f bytes and f/16 rows of the output.
    """
    token = fired.token
    place_in_token = torch.arange(len(token), device=token.device) - _starts(token, n)[token]
    groups = (place_in_token % _GROUP == 0).nonzero().squeeze(1)
    sums = embedding_bag(fired.feature, W_dec, groups, mode="sum", per_sample_weights=fired.value)
    every_group = torch.arange(len(groups), device=token.device)
    return embedding_bag(every_group, sums, _starts(token[groups], n), mode="sum").add_(b_dec)


def decode_from_file(fired: Firings, n: int, W_dec: LazyTensor, b_dec: torch.Tensor) -> torch.Tensor:
    """The same, bit for bit, where `W_dec` lies in a file: of it only rows whose feature fired are read.

    Holds some 32 MB of them at a time, or all of one token's.

    Raises:
        SAELoadError: a row that is not finite.
    """
    features, place = torch.unique(fired.feature, return_inverse=True)
    if len(features) * W_dec.shape[1] * fired.value.itemsize > GATHER_BYTES and n > 1:
        halves = zip(fired.halves(n), (n // 2, n - n // 2), strict=True)
        return torch.cat([decode_from_file(half, tokens, W_dec, b_dec) for half, tokens in halves])
    rows = W_dec.take(features).to(fired.value)
    if not bool(rows.isfinite().all()):
        found = "other rows that fired"
        raise SAELoadError("not_finite", W_dec.origin, f"a decoder finite in {fired.value.dtype}", found)
    return decode_fired(fired._replace(feature=place), n, rows, b_dec)


def decode_dense(acts: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor) -> torch.Tensor:
    """The same by one matrix product over all features of `acts` [n, d_sae]."""
    return torch.addmm(b_dec, acts, W_dec)


def _starts(tokens: torch.Tensor, n_tokens: int) -> torch.Tensor:
    """Where each token's entries begin in the sorted `tokens`."""
    return torch.searchsorted(tokens, torch.arange(n_tokens, device=tokens.device))
