"""Records in which arrays dominate: one safetensors buffer whose metadata carries the JSON header.

Any safetensors tool can open such a record. Nothing here can execute code: no pickle anywhere.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from stream_interp.errors import IntegrityError

Arrays = dict[str, NDArray[Any]]
Header = TypeVar("Header", bound=msgspec.Struct)

_NAMES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_,
}  # fmt: skip


def pack(header: msgspec.Struct, arrays: Arrays) -> bytes:
    """One record from a typed header and named arrays."""
    return write_tensors(arrays, {"header": msgspec.json.encode(header).decode()})


def write_tensors(
    arrays: Arrays, metadata: dict[str, str] | None = None, bfloat16: frozenset[str] = frozenset()
) -> bytes:
    """A safetensors buffer. The uint16 arrays named in `bfloat16` are bfloat16 bits, a type that numpy lacks."""
    kept = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # alive while Rust reads them
    specs = {
        name: TensorSpec(
            dtype="bfloat16" if name in bfloat16 else str(array.dtype),
            shape=list(array.shape),
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in kept.items()
    }
    return bytes(serialize(specs, metadata))


def unpack(data: bytes, header_type: type[Header]) -> tuple[Header, Arrays]:
    """The header and the arrays of a record.

    Raises:
        IntegrityError: not a record of this type.
    """
    try:
        n_header = int.from_bytes(data[:8], "little")
        metadata = msgspec.json.decode(data[8 : 8 + n_header])["__metadata__"]
        header = msgspec.json.decode(metadata["header"], type=header_type)
        return header, read_tensors(data)
    except (SafetensorError, msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"not a {header_type.__name__} record of {len(data)} bytes: {error}; was it written by another version?"
        ) from error


def read_tensors(data: bytes) -> Arrays:
    """The arrays of a safetensors buffer; bfloat16 is widened to float32, which is lossless.

    Raises:
        SafetensorError: the buffer is malformed or truncated.
        KeyError: a dtype that we do not read.
    """
    arrays: Arrays = {}
    for name, spec in deserialize(data):  # type: ignore[no-untyped-call]
        if spec["dtype"] == "BF16":
            arrays[name] = widen_bfloat16(np.frombuffer(spec["data"], np.uint16)).reshape(spec["shape"])
        else:
            arrays[name] = np.frombuffer(spec["data"], _NAMES[spec["dtype"]]).reshape(spec["shape"])
    return arrays


def widen_bfloat16(bits: NDArray[Any]) -> NDArray[np.float32]:
    """float32 of bfloat16 bits (uint16), which is lossless."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
