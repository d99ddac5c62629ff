"""`load`: find the family, read, check, fold."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae.checkpoint import Checkpoint, Hints, check_shapes, shapes
from stream_interp.sae.encoder import SAE
from stream_interp.sae.folding import fold
from stream_interp.sae.formats import find_family

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load(
    path: str | os.PathLike[str],
    *,
    family: str | None = None,
    k: int | None = None,
    activation_scale: float | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    max_memory_bytes: int | None = None,
) -> SAE:
    """Loads the SAE in folder `path`. Nothing is executed from its files, and pickles are never opened.

    Args:
        path: the checkpoint's folder; symbolic links are followed.
        family: the layout of its files; found from their names if not given.
        k: of a TopK SAE whose files lack it.
        activation_scale: the factor s = √d_in / E‖x‖ of `expected_average_only_in`, where the files lack it.
        dtype: float32 if not given; others change which borderline features fire.
        device: `cpu` if not given; `auto` is CUDA where there is one.
        max_memory_bytes: refuse, before allocating, an SAE that needs more.

    Raises:
        SAELoadError: it cannot be trusted to be read rightly, or does not fit.
        UsageError: no such dtype or device.
    """
    target_dtype, target_device = _dtype(dtype), _device(device)
    root = Path(path)
    try:
        checkpoint = find_family(root, family).read(root, Hints(k, activation_scale))
        check_shapes(checkpoint)
        _check_memory(checkpoint, target_dtype, max_memory_bytes)
        identity, canonical = fold(checkpoint, target_dtype, target_device)
    except OSError as error:
        raise SAELoadError("unreadable", str(root), "files that can be read", str(error)) from error
    return SAE(checkpoint.config, identity, canonical)


def _check_memory(checkpoint: Checkpoint, dtype: torch.dtype, max_memory_bytes: int | None) -> None:
    needed = sum(prod(shape) for shape in shapes(checkpoint.config).values()) * dtype.itemsize
    if max_memory_bytes is not None and needed > max_memory_bytes:
        found = f"{needed} bytes needed to load it as {dtype}"
        raise SAELoadError("too_large", str(checkpoint.path), f"at most {max_memory_bytes} bytes", found)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if wanted not in _DTYPES:
        raise UsageError(f"dtype {dtype!r}: an SAE computes in one of {', '.join(map(str, _DTYPES))}")
    return wanted


def _device(device: torch.device | str | None) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device or "cpu")
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: give cpu, cuda, cuda:N or auto") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}: this machine has no CUDA device; use cpu or auto")
    return wanted
