"""A tensor in a file, read a block of rows at a time: what is loaded never lies in memory twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.errors import SAELoadError

BLOCK_ELEMENTS = 1 << 20  # of a block as stored; bounds the temporaries of work in float64
GATHER_BYTES = 32 << 20  # rows of a turned tensor held while they are gathered


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of known shape and dtype that is not read yet.

    `read_rows(a, b)` gives rows a to b as the file has them, on the CPU; `turned`: the file has it transposed.
    `mapped()` gives the bits of its entries as integers of their size, memory-mapped; None: not of a plain file, which
    is `origin`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read_rows: Callable[[int, int], torch.Tensor]
    turned: bool = False
    mapped: Callable[[], NDArray[Any]] | None = None
    origin: str = ""

    @classmethod
    def made(cls, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], torch.Tensor]) -> LazyTensor:
        """Of a tensor that is computed when it is first asked for, and kept."""
        kept = cache(make)
        return cls(shape, dtype, lambda a, b: kept()[a:b] if shape else kept())

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in the file, and in memory as stored."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def transposed(self) -> LazyTensor:
        """[m, n] of what is [n, m] here."""
        return replace(self, shape=self.shape[::-1], turned=not self.turned)

    @property
    def flattened(self) -> LazyTensor:
        """[n, a·b] of what is [n, a, b] here."""
        n, width, read, mapped = self.shape[0], prod(self.shape[1:]), self.read_rows, self.mapped
        flat_map = None if mapped is None else lambda: mapped().reshape(n, width)
        return replace(self, shape=(n, width), read_rows=lambda a, b: read(a, b).reshape(b - a, width), mapped=flat_map)

    def columns_from(self, start: int) -> LazyTensor:
        """The columns `start` and on of a matrix that is not turned."""
        n, width, read, mapped = *self.shape, self.read_rows, self.mapped
        part = None if mapped is None else lambda: mapped()[:, start:]
        return replace(self, shape=(n, width - start), read_rows=lambda a, b: read(a, b)[:, start:], mapped=part)

    def row(self, i: int) -> LazyTensor:
        """Row i of a matrix that is not turned, as a vector."""
        return LazyTensor.made(self.shape[1:], self.dtype, lambda: self.read_rows(i, i + 1)[0])

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows [m, …] of these numbers [m]; of a mapped file no other page of it is read.

        Raises SAELoadError where the file is gone, or shorter than it was.
        """
        if self.mapped is None:
            return self.read()[rows.cpu()]
        try:
            bits, chosen = self.mapped(), rows.cpu().numpy()
        except (OSError, ValueError) as error:
            raise SAELoadError("unreadable", self.origin, "the file that was there at loading", str(error)) from error
        found = np.ascontiguousarray(bits[:, chosen].T if self.turned else bits[chosen])
        return torch.from_numpy(found).view(self.dtype)

    def blocks(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """(rows, columns, block) in the order of the file; the blocks tile the tensor. Columns of a vector: none.

        Raises SAELoadError where the file ends early.
        """
        stored_shape = self.shape[::-1] if self.turned else self.shape
        n, every = stored_shape[0], slice(None)
        at_once = max(1, BLOCK_ELEMENTS // max(1, prod(stored_shape[1:])))
        for a in range(0, n, at_once):
            part = slice(a, min(a + at_once, n))
            stored = self.read_rows(part.start, part.stop)
            yield (every, part, stored.T) if self.turned else (part, every, stored)

    def row_blocks(self) -> Iterator[torch.Tensor]:
        """Consecutive rows. Of a turned tensor each is gathered by a pass over the file, in bounded memory."""
        if not self.turned:
            yield from (block for _, _, block in self.blocks())
            return
        n, width = self.shape
        at_once = max(1, GATHER_BYTES // max(1, width * self.dtype.itemsize))
        for start in range(0, n, at_once):
            gathered = torch.empty(min(at_once, n - start), width, dtype=self.dtype)
            for _, columns, block in self.blocks():
                gathered[:, columns] = block[start : start + at_once]
            yield gathered

    def read(self) -> torch.Tensor:
        """All of it, contiguous."""
        if not self.shape:
            return self.read_rows(0, 1)
        whole = torch.empty(self.shape, dtype=self.dtype)
        for rows, columns, block in self.blocks():
            place(whole, rows, columns, block)
        return whole


def place(out: torch.Tensor, rows: slice, columns: slice, block: torch.Tensor) -> None:
    """Copies a block of `blocks` to where it belongs, rounded to the dtype of `out`."""
    if out.dim() == 1:
        out[rows] = block
    else:
        out[rows, columns] = block


def oriented(tensor: LazyTensor, shape: tuple[int, ...], *, stored_transposed: bool) -> LazyTensor:
    """A matrix as [rows, columns] = `shape`: told by its own shape, by the family's convention where it is square.

    One that fits neither way comes back as it is, for `check_shapes` to refuse.
    """
    square = len(set(shape)) == 1
    transposed = stored_transposed if square else tensor.shape == shape[::-1]
    return tensor.transposed if transposed and tensor.shape == shape[::-1] else tensor


def renamed(path: Path, stored: Mapping[str, LazyTensor], names: Mapping[str, str]) -> dict[str, LazyTensor]:
    """The tensors by our names. Raises SAELoadError if `names` does not tell of one, or two have the same name."""
    found: dict[str, LazyTensor] = {}
    for name, tensor in stored.items():
        if name not in names or names[name] in found:
            raise SAELoadError("unknown_tensor", str(path), f"only {sorted(names)}, each once", name)
        found[names[name]] = tensor
    return found
