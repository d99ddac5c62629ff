"""Activation files: safetensors with `acts [n, d_in]` and an id per token, read request by request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stream_interp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_INTS = {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "U16": "uint16", "U32": "uint32"}
_ID_NAMES = ("request_id", "doc_id")
_EXPECTED = (
    "expected acts [n, d_in] of float16, bfloat16 or float32, request_id [n] or doc_id [n] of integers, "
    "optionally position [n], group_id [n] and segment_id [n] of integers and special_mask [n] of bool"
)


@dataclass(frozen=True)
class FileRequest:
    """One request of an activation file; the arrays are copies of their own.

    Attributes:
        request_id: the file's id in decimal.
        acts: [n_tokens, d_in] float16 or float32; uint16 bits where the file's dtype is bfloat16.
        positions: [n_tokens] int32, token positions in the request.
        special_mask: [n_tokens] bool, true for tokens that are not counted.
        group_key, segment: its first token's group_id and segment_id, in decimal; empty: the file has none.
    """

    request_id: str
    acts: NDArray[np.generic]
    positions: NDArray[np.int32] | None
    special_mask: NDArray[np.bool_] | None
    group_key: str
    segment: str


@dataclass(frozen=True)
class ActivationFile:
    """An open activation file; `acts` stays on disk (memory-mapped) until a request is read.

    Attributes:
        dtype: float16, bfloat16 or float32, as stored.
        bounds: [requests + 1] first row of each request, then the row after the last.
        ids: [requests] the id of each request.
    """

    path: Path
    dtype: str
    bounds: NDArray[np.int64]
    ids: NDArray[np.integer]
    _arrays: Mapping[str, NDArray[np.generic]]

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self._arrays["acts"].shape[1])

    @property
    def requests(self) -> int:
        """Number of requests: contiguous runs of one id."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Number of rows."""
        return int(self.bounds[-1] - self.bounds[0])

    def part(self, start: int, stop: int) -> ActivationFile:
        """The requests from `start` to `stop`, as a file of its own."""
        return replace(self, bounds=self.bounds[start : stop + 1], ids=self.ids[start:stop])

    def iter_requests(self) -> Iterator[FileRequest]:
        """The requests in file order."""
        for request, (start, stop) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            rows = {name: np.array(array[start:stop]) for name, array in self._arrays.items()}
            positions, mask = rows.get("position"), rows.get("special_mask")
            yield FileRequest(
                request_id=str(self.ids[request]),
                acts=rows["acts"],
                positions=None if positions is None else positions.astype(np.int32),
                special_mask=None if mask is None else mask.astype(np.bool_),
                group_key=str(rows["group_id"][0]) if "group_id" in rows else "",
                segment=str(rows["segment_id"][0]) if "segment_id" in rows else "",
            )


def read_activation_file(path: str | Path) -> ActivationFile:
    """Opens an activation file; reads its ids, not its activations.

    Raises:
        UsageError: not safetensors, a tensor missing or of the wrong shape or dtype, an id that comes back later.
    """
    path = Path(path)
    stored = _stored_tensors(path)
    id_name = next((name for name in _ID_NAMES if name in stored), None)
    if "acts" not in stored or id_name is None:
        raise UsageError(f"{path}: found tensors {sorted(stored)[:12]}; {_EXPECTED}")
    acts = stored["acts"]
    if acts.dtype not in _FLOATS or len(acts.shape) != 2 or 0 in acts.shape:
        raise UsageError(f"{path}: found acts {acts.dtype}{list(acts.shape)}; {_EXPECTED}, at least one token")
    optional = [name for name in ("position", "special_mask", "group_id", "segment_id") if name in stored]
    for name in (id_name, *optional):
        _check_row_tensor(path, name, stored[name], acts.shape[0])
    ids = np.array(_mapped(path, stored[id_name]))
    starts = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1])
    _check_contiguous(path, id_name, ids[starts], starts)
    arrays = {name: _mapped(path, stored[name]) for name in ("acts", *optional)}
    return ActivationFile(path, _FLOATS[acts.dtype], np.append(starts, len(ids)), ids[starts], arrays)


class _Stored(NamedTuple):
    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    offset: int  # from the start of the file


def _stored_tensors(path: Path) -> dict[str, _Stored]:
    try:
        with safe_open(path, "np") as opened:  # checks header, offsets and file size
            names = list(opened.keys())
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(n_header))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); give a safetensors file") from error
    except (SafetensorError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: not a safetensors file ({error}); {_EXPECTED}") from error
    return {
        name: _Stored(
            header[name]["dtype"], tuple(header[name]["shape"]), 8 + n_header + header[name]["data_offsets"][0]
        )
        for name in names
    }


def _check_row_tensor(path: Path, name: str, tensor: _Stored, n_tokens: int) -> None:
    right = tensor.dtype == "BOOL" if name == "special_mask" else tensor.dtype in _INTS
    if not right or tensor.shape != (n_tokens,):
        raise UsageError(
            f"{path}: found {name} {tensor.dtype}{list(tensor.shape)} beside {n_tokens} tokens; {_EXPECTED}"
        )


def _check_contiguous(path: Path, id_name: str, ids: NDArray[np.integer], starts: NDArray[np.int64]) -> None:
    _, first = np.unique(ids, return_index=True)
    if len(first) == len(ids):
        return
    again = np.setdiff1d(np.arange(len(ids)), first)[0]
    raise UsageError(
        f"{path}: {id_name} {ids[again]} comes back in row {starts[again]} after another request; "
        f"expected the tokens of a request in one run: sort the file by {id_name}"
    )


def _mapped(path: Path, tensor: _Stored) -> NDArray[np.generic]:
    dtype = {"BF16": "uint16", "BOOL": "bool"}.get(tensor.dtype) or _FLOATS.get(tensor.dtype) or _INTS[tensor.dtype]
    return np.memmap(path, dtype=dtype, mode="r", offset=tensor.offset, shape=tensor.shape)
