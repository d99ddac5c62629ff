"""What fired and what was off in a batch's tokens, and sums of such things over requests and spans, in float64.

Each sum takes a group's tokens one after the other, so that it does not depend on the requests beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.spans import Groups
from stream_interp.encode.tokens import Bools
from stream_interp.sae.blocks import BLOCK_TOKENS, blocks

Doubles = NDArray[np.float64]


class Fired(NamedTuple):
    """`Firings` at hand; of massive tokens the values are 0, in float64."""

    token: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: Doubles


class Errors(NamedTuple):
    """Of the tokens of the error terms, in order: ‖y‖², ‖y − ŷ‖², ⟨y, ŷ⟩, ‖ŷ‖²; y what the SAE explains.

    There are no such tokens where there is nothing to compare a reconstruction with, or there is none.
    """

    target_sq: Doubles
    err_sq: Doubles
    dot: Doubles
    xhat_sq: Doubles


def bounds_of(request: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """[n + 1]: where the entries of each request begin in the ascending `request`."""
    return np.searchsorted(request, np.arange(n + 1)).astype(np.int64)


def sums_of(groups: Groups, values: NDArray[np.generic] | None, where: Bools) -> Doubles:
    """[n] float64: sums, token after token, of a value (None: 1) where a mask holds; there each token has a group."""
    chosen = None if values is None else values[where]
    return np.bincount(groups.of_token[where], chosen, minlength=groups.n).astype(np.float64)


def rows_of(groups: Groups, values: torch.Tensor, where: Bools) -> torch.Tensor:
    """[n, d] float64: the same of rows [t, d]."""
    total = torch.zeros(groups.n, values.shape[1], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(groups.of_token[where]), values[torch.from_numpy(where)].double())


def square_sums(y: torch.Tensor) -> Doubles:
    """[k] ‖y‖² of each row."""
    return y.square().sum(1).double().numpy()


def error_terms(y: torch.Tensor, xhat: torch.Tensor) -> torch.Tensor:
    """[3, k] float64 ‖y − ŷ‖², ⟨y, ŷ⟩ and ‖ŷ‖² of the rows of `y` and `xhat` [k, d_out], on their device.

    A row of which float16 has no number is not explained. In blocks, for a device may sum a row in another order where
    there are more of them.
    """
    parts = [torch.zeros(3, 0, dtype=torch.float64, device=y.device)]
    for (_, rows, of_y), (_, _, made) in zip(blocks(y, BLOCK_TOKENS), blocks(xhat.float(), BLOCK_TOKENS), strict=True):
        finite = made.where(made.isfinite().all(dim=1, keepdim=True), 0.0)
        terms = ((of_y - finite).square().sum(1), (of_y * finite).sum(1), finite.square().sum(1))
        parts.append(torch.stack(terms)[:, :rows].double())
    return torch.cat(parts, 1)


def error_sums(groups: Groups, errors: Errors, in_error: Bools, where: Bools) -> list[Doubles]:
    """[n] each: tokens of the error terms where a mask [t] holds, and the terms."""
    group, own = groups.of_token[in_error], where[in_error]
    return [np.bincount(group[own], term, groups.n).astype(np.float64) for term in (None, *(e[own] for e in errors))]
