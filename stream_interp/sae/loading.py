"""`load`: find the family, read, check, fold."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae.checkpoint import Hints, LayeredCheckpoint, check_shapes
from stream_interp.sae.encoder import SAE
from stream_interp.sae.folding import fold
from stream_interp.sae.formats import find_family
from stream_interp.sae.layered import LayeredSAE, check_memory

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
) -> SAE | LayeredSAE:
    """Loads the SAE in folder `path`. Nothing is executed from its files, and pickles are never opened.

    A transcoder set or a cross-layer transcoder comes as `LayeredSAE`, of which nothing is in memory yet; `PATH#3` is
    its layer 3, an SAE.

    Args:
        path: the checkpoint's folder, or `FOLDER#LAYER`; symbolic links are followed.
        family: the layout of its files; found from their names if not given.
        k: of a TopK SAE whose files lack it.
        activation_scale: the factor s = √d_in / E‖x‖ of `expected_average_only_in`, where the files lack it.
        dtype: float32 if not given; others change which borderline features fire.
        device: `cpu` if not given; `auto` is CUDA where there is one.
        max_memory_bytes: refuse, before allocating, an SAE that needs more.

    Raises:
        SAELoadError: it cannot be trusted to be read rightly, or does not fit.
        UsageError: no such dtype, device or layer.
    """
    target_dtype, target_device = _dtype(dtype), _device(device)
    root, layer = _path_and_layer(path)
    try:
        checkpoint = find_family(root, family).read(root, Hints(k, activation_scale))
        if isinstance(checkpoint, LayeredCheckpoint):
            layered = LayeredSAE(checkpoint, target_dtype, target_device, max_memory_bytes)
            return layered if layer is None else layered.layer(layer)
        if layer is not None:
            raise UsageError(f"{path}: {root} holds one SAE, not one for each layer; leave #{layer} away")
        check_shapes(checkpoint)
        check_memory([checkpoint], target_dtype, max_memory_bytes)
        identity, canonical = fold(checkpoint, target_dtype, target_device)
    except OSError as error:
        raise SAELoadError("unreadable", str(root), "files that can be read", str(error)) from error
    return SAE(checkpoint.config, identity, canonical)


def load_encoder(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    max_memory_bytes: int | None = None,
) -> SAE:
    """As `load`, for one hook: the SAE in a folder, or one layer of a set as `FOLDER#LAYER`.

    Raises:
        SAELoadError: as `load`.
        UsageError: as `load`; a set without a layer.
    """
    loaded = load(path, device=device, max_memory_bytes=max_memory_bytes)
    if isinstance(loaded, LayeredSAE):
        raise UsageError(
            f"{path} holds an SAE for each of {loaded.n_layers} layers; name that of this hook: "
            f"{path}#0 to {path}#{loaded.n_layers - 1}"
        )
    return loaded


def _path_and_layer(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    folder, mark, layer = os.fspath(path).rpartition("#")
    if not mark or not re.fullmatch(r"[0-9]{1,6}", layer) or Path(path).exists():
        return Path(path), None
    return Path(folder), int(layer)


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
    if wanted.type not in ("cpu", "cuda"):  # what fires is queued by means of CUDA
        raise UsageError(f"device {device!r}: give cpu, cuda, cuda:N or auto")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}: this machine has no CUDA device; use cpu or auto")
    return wanted
