"""Feature activations as the few that are not zero, by token, then feature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

_WORD = 8  # bytes


class Firings(NamedTuple):
    """What fired in n tokens: `token` and `feature` [m] int64, ascending; `value` [m], the activations."""

    token: torch.Tensor
    feature: torch.Tensor
    value: torch.Tensor

    @classmethod
    def none(cls, like: torch.Tensor) -> Firings:
        """Nothing fired; values are of the dtype of `like`, all on its device."""
        nothing = torch.zeros(0, dtype=torch.int64, device=like.device)
        return cls(nothing, nothing, like.new_zeros(0))

    @classmethod
    def of(cls, acts: torch.Tensor) -> Firings:
        """The entries of `acts` [n, d_sae] that are not 0."""
        token, feature = acts.nonzero(as_tuple=True)
        return cls(token, feature, acts[token, feature])

    def dense(self, n: int, d_sae: int) -> torch.Tensor:
        """[n, d_sae], 0 where nothing fired."""
        acts = self.value.new_zeros(n, d_sae)
        acts[self.token, self.feature] = self.value
        return acts

    def of_tokens(self, chosen: torch.Tensor) -> Firings:
        """What fired in the tokens where `chosen` [n] bool holds, which are counted anew from 0."""
        kept = chosen[self.token]
        return Firings((chosen.cumsum(0) - 1)[self.token[kept]], self.feature[kept], self.value[kept])


def where(mask: torch.Tensor) -> torch.Tensor:
    """Flat places [m] int64 of the true entries of a contiguous bool `mask`, ascending.

    On a CPU eight entries are looked at as one word: few features fire, so most words are 0.
    """
    flat = mask.view(-1)
    if mask.device.type != "cpu" or len(flat) % _WORD:
        return flat.nonzero().squeeze(1)
    words = flat.numpy().view(np.int64)
    hit = np.flatnonzero(words)
    word, byte = np.nonzero(words[hit].view(np.bool_).reshape(-1, _WORD))
    return torch.from_numpy(hit[word] * _WORD + byte)
