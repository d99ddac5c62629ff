"""Which tokens of a request are judged together: its unit and the blocks after it, or of a short one its first few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Groups(NamedTuple):
    """The group of each token, [t], -1: of none; there are `n` of them."""

    of_token: Ints
    n: int


class Spans(NamedTuple):
    """The spans of n requests, s in all, request after request.

    Attributes:
        bounds: [n + 1] where those of each request begin.
        request: [s] whose it is.
        stratum: [s] place in `stratum_names`.
        tokens: the span of each token.
    """

    bounds: Ints
    request: Ints
    stratum: Ints
    tokens: Groups

    @classmethod
    def of(cls, units: Ints, blocks: Ints, shorts: Ints, counts: Ints, request: Ints, place: Ints) -> Spans:
        """Of requests that have `counts` [n] counted tokens, in lanes of so many `units`, `blocks` and `shorts` [n].

        Args:
            request, place: [t] of each token its request, and how many tokens of that are before it.
        """
        short = counts < units
        size = np.where(short, shorts, units)
        size = np.where(size == 0, np.maximum(counts, 1), size)
        n = np.minimum(counts // size, np.where(short, 1, blocks)).astype(np.int64)
        bounds = np.concatenate([[0], np.cumsum(n)])
        own = np.repeat(np.arange(len(counts)), n)
        block = np.arange(len(own)) - bounds[own]
        stratum = np.where(short[own], 1, block + (block > 0))  # 1 is `short`, so block k is 1 + k
        block_of_token = place // size[request]
        of_token = np.where(block_of_token < n[request], bounds[request] + block_of_token, -1)
        return cls(bounds, own, stratum, Groups(of_token, len(own)))
