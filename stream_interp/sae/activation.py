"""From pre-activations to feature activations, in place: a second buffer of that size would cost as much again."""

from __future__ import annotations

import torch

_ENTRIES_IN_CACHE = 1 << 20  # the fill finds in the cache what the comparison read; fewer would wait on threads


def keep_above_each(pre: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """In place: entries of `pre` [n, d_sae] not above `threshold` [d_sae] become 0. NaN stays NaN."""
    for rows in torch.split(pre, _rows_in_cache(pre)):
        rows.masked_fill_(rows <= threshold, 0.0)
    return pre


def keep_above(pre: torch.Tensor, threshold: float) -> torch.Tensor:
    """In place: the same with one threshold for all features, in one pass."""
    return torch.threshold_(pre, threshold, 0.0)


def keep_gated(pre: torch.Tensor, threshold: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """In place: entries of `pre` [n, d_sae] become relu(p·gain + offset) where p > threshold, else 0. NaN stays NaN."""
    for rows in torch.split(pre, _rows_in_cache(pre)):
        closed = rows <= threshold
        rows.mul_(gain).add_(offset).relu_().masked_fill_(closed, 0.0)
    return pre


def keep_group_max(pre: torch.Tensor, k: int) -> torch.Tensor:
    """In place: all but the largest entry of each of `k` equal groups of neighbours, and those not above 0, become 0.

    Of equal largest entries one is kept. d_sae must be a multiple of k.
    """
    groups = pre.view(len(pre), k, pre.shape[1] // k)
    values, places = groups.max(dim=2, keepdim=True)
    groups.zero_().scatter_(2, places, values.relu_())
    return pre


def keep_top_k(pre: torch.Tensor, k: int) -> torch.Tensor:
    """In place: all but the `k` largest entries of a row, and those not above 0, become 0. NaN stays NaN."""
    values, features = pre.topk(k, dim=1, sorted=False)
    return pre.zero_().scatter_(1, features, values.relu_())


def _rows_in_cache(pre: torch.Tensor) -> int:
    return max(1, _ENTRIES_IN_CACHE // pre.shape[1] if pre.device.type == "cpu" else len(pre))
