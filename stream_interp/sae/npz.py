"""Reading `.npz` files that may be hostile: no pickled object, no size believed that the archive does not have."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.files import require_file
from stream_interp.sae.tensors import LazyTensor

MAX_MEMBERS = 64
MAX_NPY_HEADER_BYTES = 10_000
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16}
_BROKEN = (
    zipfile.BadZipFile, zlib.error, ValueError, OSError, NotImplementedError, RuntimeError, EOFError,
    SyntaxError, TokenError, MemoryError,  # what Python's parser makes of a hostile array header
)  # fmt: skip


def open_npz(path: Path) -> dict[str, LazyTensor]:
    """The arrays of an archive, by name; none is read yet. float16, float32 or float64, in C or Fortran order.

    Raises:
        SAELoadError: missing, not a zip archive, an array that is none of these, or sizes that disagree.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise SAELoadError("bad_header", str(path), f"at most {MAX_MEMBERS} arrays", f"{len(members)}")
            return {member.filename.removesuffix(".npy"): _lazy(path, archive, member) for member in members}
    except _BROKEN as error:
        raise SAELoadError("bad_header", str(path), "a .npz archive of arrays", str(error)) from error


def _lazy(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> LazyTensor:
    # LZMA may ask for 4 GB of memory to inflate a byte.
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError(f"{member.filename} compressed by method {member.compress_type}, expected none or deflate")
    with archive.open(member) as file:
        shape, in_fortran_order, dtype, header_bytes = _header(file)
    if dtype.newbyteorder("=").name not in _DTYPES:
        raise SAELoadError("wrong_dtype", str(path), f"{member.filename} as one of {list(_DTYPES)}", str(dtype))
    needed, declared = header_bytes + prod(shape) * dtype.itemsize, member.file_size
    if needed != declared or declared > _most_bytes(member):
        expected = f"{member.filename} {list(shape)} {dtype} in {needed} bytes"
        found = f"{declared} bytes in {member.compress_size} compressed ones"
        raise SAELoadError("truncated" if needed > declared else "bad_header", str(path), expected, found)
    kind = _DTYPES[dtype.newbyteorder("=").name]
    rows = _Rows(path, member.filename, shape[::-1] if in_fortran_order else shape, dtype)
    tensor = LazyTensor(rows.shape, kind, rows.read)
    return tensor.transposed if in_fortran_order else tensor


def _most_bytes(member: zipfile.ZipInfo) -> int:
    """Deflate makes at most 1,032 bytes of one: what is declared beyond that is not there."""
    return member.compress_size if member.compress_type == zipfile.ZIP_STORED else member.compress_size * 1_040 + 1_000


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran order, dtype, and how many bytes this took. Raises ValueError."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format, expected 1.0 or 2.0")
    shape, in_fortran_order, dtype = read(file, max_header_size=MAX_NPY_HEADER_BYTES)
    if min(shape, default=0) < 0 or dtype.hasobject:
        raise ValueError(f"shape {shape} of {dtype}, expected numbers")
    return shape, in_fortran_order, dtype, file.tell()


class _Rows:
    """Rows of one array, in C order; read one after the other they are inflated once."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self._path, self._name, self._dtype = path, name, dtype
        self._file: IO[bytes] | None = None
        self._next = 0

    def read(self, a: int, b: int) -> torch.Tensor:
        """Rows a to b. Raises SAELoadError."""
        array = np.empty((b - a, *self.shape[1:]) if self.shape else (), self._dtype)
        try:
            file = self._at(a)
            rest = memoryview(array.reshape(-1).view(np.uint8).data)
            while len(rest):
                part = file.read(min(len(rest), 1 << 20))
                if not part:
                    found = "the end of the file"
                    raise SAELoadError("truncated", str(self._path), f"{len(rest)} more bytes of {self._name}", found)
                rest[: len(part)] = part
                rest = rest[len(part) :]
        except _BROKEN as error:
            raise SAELoadError("bad_header", str(self._path), f"{self._name} as it is declared", str(error)) from error
        self._next = b
        return torch.from_numpy(array.astype(self._dtype.newbyteorder("="), copy=False))

    def _at(self, row: int) -> IO[bytes]:
        if self._file is None or self._next != row:
            self._file = zipfile.ZipFile(self._path).open(self._name)  # noqa: SIM115 - it stays open between rows
            _header(self._file)
            self._file.seek(row * prod(self.shape[1:]) * self._dtype.itemsize, 1)
        return self._file
