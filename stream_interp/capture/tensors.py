"""Arrays of the caller's, torch or numpy, on any device → arrays of our own. torch is used only where it is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_interp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    ArrayLike: TypeAlias = torch.Tensor | NDArray[np.generic]

_FLOATS = {"float16": "float16", "float32": "float32", "uint16": "bfloat16"}  # uint16: bfloat16 bits


class Owned(NamedTuple):
    """A copy that nobody else writes to. `ready` is the CUDA event after which it may be read."""

    data: Any
    ready: Any = None


def is_tensor(value: object) -> bool:
    """Whether this is a torch tensor, without loading torch."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(value, torch_module.Tensor)


def nbytes(array: ArrayLike) -> int:
    """Bytes of data."""
    return int(array.nbytes)


def with_batch_axis(array: ArrayLike | Sequence[int] | Sequence[bool]) -> ArrayLike:
    """[…] → [1, …], a view; lists become numpy."""
    return array[None] if is_tensor(array) else np.asarray(array)[None]  # type: ignore[call-overload]


def own(array: ArrayLike) -> Owned:
    """A copy for the worker, free of autograd. On CUDA it is made on the caller's stream without waiting."""
    if not is_tensor(array):
        return Owned(np.array(array))
    copy = array.detach().clone()  # type: ignore[union-attr]
    if not copy.is_cuda:
        return Owned(copy)
    import torch

    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(copy.device))
    return Owned(copy, event)


def to_host(owned: Owned) -> NDArray[np.generic]:
    """The copy as numpy, bfloat16 as uint16 bits. Waits for the device, so only the worker calls it."""
    if not is_tensor(owned.data):
        array: NDArray[np.generic] = owned.data
        return array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    import torch

    tensor = owned.data
    if tensor.is_cuda:
        with torch.cuda.device(tensor.device), torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            torch.cuda.current_stream().wait_event(owned.ready)
            tensor = tensor.cpu()
    else:
        tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.contiguous().view(torch.int16).numpy()).view(np.uint16)
    return np.asarray(tensor.numpy())


def as_floats(array: NDArray[np.generic]) -> tuple[NDArray[np.generic], str]:
    """Activations in a dtype that snapshots have, and its name; float64 is rounded to float32.

    Raises:
        UsageError: any other dtype.
    """
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.name not in _FLOATS:
        raise UsageError(f"activations of {array.dtype}; expected float16, bfloat16 (or its uint16 bits) or float32")
    return array, _FLOATS[array.dtype.name]
