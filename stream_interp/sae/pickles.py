"""Reading `.pt` files, for `convert` alone: with torch's restricted unpickler, and nothing it claims is believed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.files import require_file
from stream_interp.sae.tensors import LazyTensor

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def open_pickle(path: Path) -> dict[str, object]:
    """The dictionary in a `.pt` file: tensors and plain values, by name.

    `weights_only=True` keeps it from calling what the file names; it had two known holes (CVE-2025-32434,
    CVE-2026-24747), so a pickle of a stranger is opened in a sandbox or not at all.

    Raises:
        SAELoadError: missing, not such a file, compressed, or it holds anything but tensors and plain values.
    """
    require_file(path)
    try:
        _require_stored(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except SAELoadError:
        raise
    except Exception as error:  # whatever a hostile pickle makes the unpickler raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise SAELoadError("pickle", str(path), "a .pt file of tensors and plain values", reason) from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise SAELoadError("pickle", str(path), "a dictionary of tensors by name", type(loaded).__name__)
    return loaded


def _require_stored(path: Path) -> None:
    """torch inflates a compressed pickle whatever its size, and takes the bytes of compressed tensors as they are."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                found = f"{member.filename[:80]} of {member.compress_size} bytes that becomes {member.file_size}"
                raise SAELoadError("pickle", str(path), "a .pt file as torch.save writes it, not compressed", found)


def tensors_of(path: Path, loaded: dict[str, object]) -> dict[str, LazyTensor]:
    """The floating-point tensors among the values.

    Raises:
        SAELoadError: one has more entries than the file has room for, such as one number repeated by a stride of 0.
    """
    file_bytes = path.stat().st_size
    found = {}
    for name, value in loaded.items():
        if not isinstance(value, torch.Tensor) or value.dtype not in _DTYPES:
            continue
        if value.layout != torch.strided or value.is_meta or value.numel() * value.itemsize > file_bytes:
            expected = f"{name} inside a file of {file_bytes} bytes"
            unlike = f"{list(value.shape)} {value.dtype} {value.layout} on {value.device}"
            raise SAELoadError("bad_header", str(path), expected, unlike)
        found[name] = LazyTensor.made(tuple(value.shape), value.dtype, value.detach)
    return found
