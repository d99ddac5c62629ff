"""What a hook saw → `acts [B, T, d_in]` and which of its tokens are real. Views only: no copy, no device sync."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stream_interp.capture.tensors import is_tensor

if TYPE_CHECKING:
    import torch

    from stream_interp.capture.tensors import ArrayLike


def first_tensor(output: object) -> torch.Tensor:
    """The output itself, or the first tensor in its tuple, list or mapping. Raises ValueError."""
    values = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else (output,)
    )
    for value in values:
        if is_tensor(value):
            return value  # type: ignore[no-any-return]
    raise ValueError(f"the output is {type(output).__name__}; expected a tensor, or a tuple or mapping with one")


def batch_arrays(output: torch.Tensor, n_requests: int | None, mask: torch.Tensor | None) -> dict[str, ArrayLike]:
    """`acts [B, T, d_in]` and, for more than one token a request, `keep [B, T]` or `positions [B, T]`.

    Args:
        output: [B, T, d_in]; [B, d_in] with one token a request; [T, d_in] of a single request; or, with a mask,
            [B·T, d_in].
        n_requests: B where it is known.
        mask: [B, T], zero for padding.

    Raises:
        ValueError: the shapes do not fit together.
    """
    if output.ndim == 3:
        if mask is not None:
            return _masked(output, mask)
        return {"acts": output, "positions": np.broadcast_to(np.arange(output.shape[1]), output.shape[:2])}
    if output.ndim != 2:
        raise ValueError(f"the output is {list(output.shape)}; expected [B, T, d_in], [B, d_in] or [T, d_in]")
    n_rows = output.shape[0]
    if mask is not None and mask.ndim == 2 and n_rows == mask.numel():
        return _masked(output.reshape(*mask.shape, -1), mask)
    if n_requests == 1 and n_rows != 1:
        return batch_arrays(output[None], 1, None)
    return {"acts": output[:, None]}


def _masked(acts: torch.Tensor, mask: torch.Tensor) -> dict[str, ArrayLike]:
    if mask.shape != acts.shape[:2]:
        raise ValueError(f"attention_mask {list(mask.shape)} beside an output {list(acts.shape)}; expected [B, T]")
    return {"acts": acts, "keep": mask}
