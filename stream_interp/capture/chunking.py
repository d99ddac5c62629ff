"""Cutting one snapshot by tokens into records below the largest message. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream_interp.errors import UsageError
from stream_interp.records.snapshot import Snapshot

HEADER_BYTES = 1024  # above the length and JSON header of a safetensors buffer with our four tensors
_TOKEN_ARRAYS = ("acts", "acts_out", "positions", "special_mask")


def split_tokens(snapshot: Snapshot, max_bytes: int) -> list[Snapshot]:
    """Chunks 0…n-1 of a whole snapshot, each a safetensors value of at most `max_bytes`; arrays are views.

    Raises:
        UsageError: no tokens, arrays of unequal length, or one token alone is over `max_bytes`.
    """
    arrays = {name: array for name in _TOKEN_ARRAYS if (array := getattr(snapshot, name)) is not None}
    _check_shapes(arrays)
    n_tokens = snapshot.acts.shape[0]
    token_bytes = sum(array.nbytes // n_tokens for array in arrays.values())
    step = (max_bytes - HEADER_BYTES) // token_bytes
    if step < 1:
        raise UsageError(
            f"hook {snapshot.hook_name}: one token takes {token_bytes} bytes, a record at most {max_bytes} with "
            f"{HEADER_BYTES} for its header; raise max_message_bytes and the topic's max.message.bytes"
        )
    starts = range(0, n_tokens, step)
    return [
        replace(
            snapshot,
            chunk=chunk,
            chunks=len(starts),
            request_tokens=n_tokens,
            **{name: array[start : start + step] for name, array in arrays.items()},
        )
        for chunk, start in enumerate(starts)
    ]


def _check_shapes(arrays: dict[str, NDArray[np.generic]]) -> None:
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    two_d = all(array.ndim == (2 if name.startswith("acts") else 1) for name, array in arrays.items())
    if not two_d or len({array.shape[0] for array in arrays.values()}) != 1 or 0 in arrays["acts"].shape:
        raise UsageError(
            f"found {shapes}; expected acts [n, d_in], acts_out [n, d_out], positions [n], special_mask [n], n ≥ 1"
        )
