"""JSON and safetensors files. Those that are read may be hostile: nothing is executed, no claimed size is believed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import torch
import yaml
from msgspec import Meta, Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.tensors import LazyTensor

MAX_JSON_BYTES = 1 << 20
MAX_YAML_BYTES, MAX_YAML_DEPTH = 64 << 10, 16  # its parser is slow
MAX_HEADER_BYTES, MAX_TENSORS = 16 << 20, 50_000  # of a safetensors file; decode-clt's of 128 layers has 25,000
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"})

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NOT_JSON = (msgspec.MsgspecError, ValueError, RecursionError)

_T = TypeVar("_T")
_Size = Annotated[int, Meta(ge=0, le=1 << 62)]
_Shape = Annotated[list[_Size], Meta(max_length=8)]  # the product of a million sizes takes minutes


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: _Shape
    data_offsets: tuple[_Size, _Size]


def read_json(path: Path, json_type: type[_T]) -> _T:
    """A small JSON file as a typed value.

    Raises:
        SAELoadError: missing, over 1 MiB, not JSON, or not of this type.
    """
    return parsed_json(path, read_small(path, MAX_JSON_BYTES), json_type)


def parsed_json(path: Path, data: bytes, json_type: type[_T]) -> _T:
    """The bytes of a file as a typed value. Raises SAELoadError: not JSON, or not of this type."""
    try:
        return msgspec.json.decode(data, type=json_type)
    except _NOT_JSON as error:
        raise SAELoadError("bad_config", str(path), "JSON with the fields of its format", str(error)) from error


def read_yaml(path: Path, yaml_type: type[_T]) -> _T:
    """A small YAML file of texts, lists and mappings as a typed value; every scalar is a text.

    Raises:
        SAELoadError: missing, over 64 KiB, not YAML, not of this type, deeply nested, or with a tag, an anchor or an
            alias.
    """
    data = read_small(path, MAX_YAML_BYTES)
    try:
        _require_plain_yaml(data)
        return msgspec.convert(yaml.load(data, Loader=yaml.BaseLoader), yaml_type)
    except (yaml.YAMLError, IndexError, *_NOT_JSON) as error:
        reason = " ".join(str(error).split())[:300]
        raise SAELoadError("bad_config", str(path), "plain YAML with the fields of its format", reason) from error


def _require_plain_yaml(data: bytes) -> None:
    """Raises ValueError or YAMLError. The parser's time grows with the square of the depth, so it stops early."""
    depth = 0
    for event in yaml.parse(data, Loader=yaml.BaseLoader):
        if getattr(event, "tag", None) or getattr(event, "anchor", None):
            raise ValueError("a tag, an anchor or an alias")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise ValueError(f"more than {MAX_YAML_DEPTH} collections inside each other")


def read_small(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file that is to have few. Raises SAELoadError: missing, or larger."""
    require_file(path)
    if path.stat().st_size == 0:  # files of /proc say so, and a read of one may never end
        return b""
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise SAELoadError("bad_config", str(path), f"at most {max_bytes} bytes", "more")
    return data


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a file, checked against its real size; none is read yet.

    Raises:
        SAELoadError: missing, empty, a pickle, truncated, a lying header, or tensors that are not floating point.
    """
    require_file(path)
    file_bytes = path.stat().st_size
    if file_bytes < 8:  # not opened: files of /proc say 0, and a read of one may never end
        raise SAELoadError("truncated", str(path), "at least 8 bytes", f"{file_bytes}")
    with path.open("rb") as file:
        start = file.read(8)
        n_header = _header_bytes(path, start, file_bytes)
        header = file.read(n_header)
    entries = _parse_header(path, header)
    _check_tiling(path, entries, file_bytes - 8 - n_header)
    return {name: _lazy(path, name, entry, 8 + n_header) for name, entry in entries.items()}


def require_file(path: Path) -> None:
    """Raises SAELoadError unless `path` is a regular file, or a link to one."""
    if not path.is_file():
        here = sorted(p.name for p in path.parent.iterdir())[:20] if path.parent.is_dir() else "no such folder"
        raise SAELoadError("missing_file", str(path), "a regular file", f"{here}")


def _header_bytes(path: Path, start: bytes, file_bytes: int) -> int:
    declared = int.from_bytes(start, "little")
    if declared <= min(file_bytes - 8, MAX_HEADER_BYTES):
        return declared
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise SAELoadError("pickle", str(path), "a safetensors file", "a pickle, which is never unpickled")
    limit = f"a header of at most {MAX_HEADER_BYTES} bytes inside a file of {file_bytes} bytes"
    raise SAELoadError("bad_header", str(path), limit, f"a declared length of {declared}")


def _parse_header(path: Path, header: bytes) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        if len(raw) > MAX_TENSORS:
            raise SAELoadError("bad_header", str(path), f"at most {MAX_TENSORS} tensors", f"{len(raw)}")
        return {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
    except _NOT_JSON as error:
        raise SAELoadError("bad_header", str(path), "a safetensors JSON header", str(error)) from error


def _check_tiling(path: Path, entries: dict[str, _Entry], data_bytes: int) -> None:
    """Tensors must cover the data section exactly: no gap, no overlap, nothing cut off, nothing behind."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in _DTYPES:
            raise SAELoadError("wrong_dtype", str(path), f"{name} as one of {', '.join(_DTYPES)}", entry.dtype)
        begin, end = entry.data_offsets
        needed = prod(entry.shape) * _DTYPES[entry.dtype].itemsize
        if begin != position or end - begin != needed:
            expected = f"{name} {entry.shape} {entry.dtype} at bytes {position} to {position + needed}"
            raise SAELoadError("bad_header", str(path), expected, f"bytes {begin} to {end}")
        position = end
    if position != data_bytes:
        raise SAELoadError("truncated", str(path), f"{position} bytes of tensors", f"{data_bytes} bytes")


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Writes them block by block: what is written never lies in memory as a whole."""
    wide_first = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))  # keeps all of them aligned
    names, entries, position = {dtype: name for name, dtype in _DTYPES.items()}, {}, 0
    for name, tensor in wide_first.items():
        end = position + tensor.size_bytes
        entries[name] = _Entry(names[tensor.dtype], list(tensor.shape), (position, end))
        position = end
    header = msgspec.json.encode(entries)
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in wide_first.values():
            for block in tensor.row_blocks() if tensor.shape else [tensor.read()]:
                file.write(block.contiguous().view(-1).view(torch.uint8).numpy().data)


def _lazy(path: Path, name: str, entry: _Entry, data_start: int) -> LazyTensor:
    shape, dtype = tuple(entry.shape), _DTYPES[entry.dtype]
    offset = data_start + entry.data_offsets[0]
    bits = partial(np.memmap, path, f"<i{dtype.itemsize}", "r", offset, shape)
    return LazyTensor(
        shape, dtype, partial(_read_rows, path, name, shape, dtype, offset), mapped=bits, origin=str(path)
    )


def _read_rows(
    path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype, offset: int, a: int, b: int
) -> torch.Tensor:
    tensor = torch.empty((b - a, *shape[1:]) if shape else (), dtype=dtype)
    offset += a * prod(shape[1:]) * dtype.itemsize
    buffer = tensor.view(-1).view(torch.uint8).numpy().data
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while len(buffer):
            n_read = file.readinto(buffer)
            if not n_read:
                raise SAELoadError("truncated", str(path), f"{len(buffer)} more bytes of {name}", "the end of the file")
            buffer = buffer[n_read:]
    return tensor
