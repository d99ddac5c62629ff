"""`interp.activations`: the activations of one request at one hook, in 1…n chunk records (design §3).

CloudEvents binary mode; the value is one safetensors buffer. The record key is `request_id`, so that all hooks
and chunks of a request lie in one partition. Everything a producer sends is untrusted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from stream_interp.errors import InvalidSnapshot
from stream_interp.records.arrays import Arrays, read_tensors, write_tensors
from stream_interp.records.envelope import SAFETENSORS, Envelope, binary, header_map, rfc3339
from stream_interp.records.lane import digest
from stream_interp.records.segments import MANY, MAX_CHARS, is_segment

CE_TYPE = "interp.activation.snapshot.v1"
MAX_NAME_CHARS = 512
MAX_WIDTH = 65_536  # a width costs memory of its lane: 4 KB a coordinate in ENCODE
MAX_VALUE = 1e15  # sums of squares beyond it overflow float32: one request would make its whole window NaN
SEGMENT_EXPECTED = f"≤ {MAX_CHARS} printable characters, and not {MANY}"
_FLOATS = {"float16", "float32"}  # as read: bfloat16 arrives widened to float32


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One chunk of a snapshot.

    Attributes:
        acts: [n, d_in] float16 or float32; for `acts_dtype` bfloat16 when written: uint16 bits.
        acts_out: [n, d_out], for transcoders.
        positions: [n] int32 token positions in the request.
        special_mask: [n] bool, true for tokens that are not counted (BOS, padding, template).
        chunk, chunks: this is chunk k of n, counted from 0.
        request_tokens: tokens of the whole request, over all its chunks.
        group_key: of requests that hang together: of a session, say, or a customer; empty: of none.
        segment: the part of the traffic that it belongs to, by a name that may be shown; empty: it names none.
    """

    tenant: str = "default"
    model_id: str
    model_revision: str = "unversioned"
    hook_name: str
    request_id: str
    acts: NDArray[np.generic]
    acts_dtype: str
    acts_out: NDArray[np.generic] | None = None
    positions: NDArray[np.int32] | None = None
    special_mask: NDArray[np.bool_] | None = None
    chunk: int = 0
    chunks: int = 1
    request_tokens: int
    group_key: str = ""
    segment: str = ""


def encode_snapshot(snapshot: Snapshot, time_ms: int) -> Envelope:
    """The record of one chunk, captured at `time_ms`."""
    s = snapshot
    optional = {"acts_out": s.acts_out, "positions": s.positions, "special_mask": s.special_mask}
    arrays: Arrays = {"acts": s.acts} | {k: v for k, v in optional.items() if v is not None}
    belongs = {name: value for name, value in (("groupkey", s.group_key), ("segment", s.segment)) if value}
    in_bits = frozenset(k for k in ("acts", "acts_out") if k in arrays and arrays[k].dtype == np.uint16)
    return binary(
        s.request_id,
        CE_TYPE,
        SAFETENSORS,
        write_tensors(arrays, bfloat16=in_bits),
        id=digest(s.tenant, s.model_id, s.hook_name, s.model_revision, s.request_id, s.chunk),
        source=f"/{s.tenant}/{s.model_id}",
        time=rfc3339(time_ms),
        tenant=s.tenant,
        modelid=s.model_id,
        modelrevision=s.model_revision,
        hookname=s.hook_name,
        requestid=s.request_id,
        chunk=s.chunk,
        chunks=s.chunks,
        tokens=s.request_tokens,
        **belongs,
    )


def decode_snapshot(
    key: bytes | None, headers: Iterable[tuple[str, bytes | str | None]] | None, value: bytes | None, max_bytes: int
) -> Snapshot:
    """The chunk in a record, checked in every respect that does not need an SAE.

    Raises:
        InvalidSnapshot: with the reason code that the dead-letter record will carry.
    """
    attributes = _attributes(headers)
    names = {n: _name(attributes, f"ce_{n}") for n in ("modelid", "modelrevision", "hookname", "requestid", "tenant")}
    if key != names["requestid"].encode():
        found = "no key" if key is None else f"another key of {len(key)} bytes"  # ids enter no message
        raise InvalidSnapshot("key_mismatch", found, "the request id, as in ce_requestid")
    chunk, chunks, tokens = (_number(attributes, f"ce_{n}") for n in ("chunk", "chunks", "tokens"))
    if not chunk < chunks <= 1_000_000 or tokens < 1:
        raise InvalidSnapshot(
            "bad_metadata", f"chunk {chunk} of {chunks}, {tokens} tokens", "0 ≤ chunk < chunks, ≥ 1 token"
        )
    group_key = _name(attributes, "ce_groupkey") if attributes.get("ce_groupkey") else ""
    segment = _segment(attributes.get("ce_segment", ""))
    arrays = _tensors(value, max_bytes)
    return Snapshot(
        tenant=names["tenant"],
        model_id=names["modelid"],
        model_revision=names["modelrevision"],
        hook_name=names["hookname"],
        request_id=names["requestid"],
        chunk=chunk,
        chunks=chunks,
        request_tokens=tokens,
        group_key=group_key,
        segment=segment,
        **_checked(arrays, tokens, chunks),
    )


def _attributes(headers: Iterable[tuple[str, bytes | str | None]] | None) -> dict[str, str]:
    try:
        attributes = header_map(headers)
    except UnicodeDecodeError as error:
        raise InvalidSnapshot("bad_metadata", f"a header that is not UTF-8 ({error.reason})", "UTF-8 text") from error
    if "ce_type" not in attributes or "ce_specversion" not in attributes:
        raise InvalidSnapshot(
            "not_cloudevent", f"headers {sorted(attributes)[:12]}", "CloudEvents binary mode (ce_… headers)"
        )
    if attributes["ce_type"] != CE_TYPE:
        raise InvalidSnapshot("wrong_type", f"ce_type {attributes['ce_type'][:80]!r}", CE_TYPE)
    content_type = attributes.get("content-type", "")
    if content_type.split(";")[0].strip() != SAFETENSORS:
        raise InvalidSnapshot("wrong_content_type", f"content-type {content_type[:80]!r}", SAFETENSORS)
    return {"ce_tenant": "default", "ce_modelrevision": "unversioned", **attributes}


def _name(attributes: dict[str, str], header: str) -> str:
    value = attributes.get(header, "")
    if not value:
        raise InvalidSnapshot("missing_metadata", f"no header {header}", "model, hook and request id")
    if len(value) > MAX_NAME_CHARS or not value.isprintable():
        raise InvalidSnapshot(
            "bad_metadata", f"{header} of {len(value)} characters", f"≤ {MAX_NAME_CHARS} printable characters"
        )
    return value


def _segment(name: str) -> str:
    if not is_segment(name):
        raise InvalidSnapshot("bad_metadata", f"ce_segment of {len(name)} characters", SEGMENT_EXPECTED)
    return name


def _number(attributes: dict[str, str], header: str) -> int:
    text = attributes.get(header)
    if text is None:
        raise InvalidSnapshot("missing_metadata", f"no header {header}", "a whole number")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidSnapshot("bad_metadata", f"{header} = {text[:40]!r}", "a whole number below 1e9")
    return int(text)


def _tensors(value: bytes | None, max_bytes: int) -> Arrays:
    if value is None or len(value) == 0:
        raise InvalidSnapshot("empty", "no value", "a safetensors buffer")
    if len(value) > max_bytes:
        raise InvalidSnapshot("oversized", f"{len(value)} bytes", f"≤ {max_bytes} bytes a request (request.max_bytes)")
    try:
        return read_tensors(value)
    except KeyError as error:
        raise InvalidSnapshot("wrong_dtype", f"a tensor of dtype {error}", "float16, bfloat16 or float32") from error
    except (SafetensorError, ValueError) as error:
        raise InvalidSnapshot(
            "not_safetensors", f"{len(value)} bytes: {error}"[:300], "a complete safetensors buffer"
        ) from error


def _checked(arrays: Arrays, tokens: int, chunks: int) -> dict[str, Any]:
    acts = arrays.get("acts")
    if acts is None:
        raise InvalidSnapshot("missing_acts", f"tensors {sorted(arrays)[:12]}", "a tensor named acts")
    for name in ("acts", "acts_out"):
        if name in arrays:
            _check_floats(name, arrays[name], acts.shape[0] if acts.ndim else 0)
    n = acts.shape[0]
    if n > tokens or (chunks == 1 and n != tokens):
        raise InvalidSnapshot(
            "length_mismatch", f"{n} tokens in acts, ce_tokens {tokens}", "the same number, over all chunks"
        )
    for name, kinds in (("positions", "iu"), ("special_mask", "b")):
        if name in arrays and (arrays[name].shape != (n,) or arrays[name].dtype.kind not in kinds):
            raise InvalidSnapshot("length_mismatch", f"{name} {arrays[name].dtype}{list(arrays[name].shape)}", f"[{n}]")
    known = {k: arrays.get(k) for k in ("acts", "acts_out", "positions", "special_mask")}
    return {**known, "acts_dtype": str(acts.dtype)}


def _check_floats(name: str, array: NDArray[np.generic], n: int) -> None:
    if str(array.dtype) not in _FLOATS:
        raise InvalidSnapshot("wrong_dtype", f"{name} of {array.dtype}", "float16, bfloat16 or float32")
    if array.ndim != 2 or not 0 < array.shape[1] <= MAX_WIDTH:
        raise InvalidSnapshot("wrong_shape", f"{name} {list(array.shape)}", f"[n_tokens, d], d ≤ {MAX_WIDTH:,}")
    if array.shape[0] == 0:
        raise InvalidSnapshot("empty", f"{name} without tokens", "at least one token")
    if array.shape[0] != n:
        raise InvalidSnapshot("length_mismatch", f"{name} {list(array.shape)} beside {n} tokens", f"[{n}, d_out]")
    if has_non_finite(array):
        raise InvalidSnapshot("non_finite", f"NaN, infinity or |x| > {MAX_VALUE:g} in {name}", "finite numbers")


def has_non_finite(array: NDArray[np.generic]) -> bool:
    """NaN, infinity, or beyond MAX_VALUE; `array` float16 or float32."""
    if array.dtype == np.float16:  # exponent bits all ones; numpy converts float16 one by one, bits are 20× faster
        return bool(((array.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return not bool((np.abs(array) <= MAX_VALUE).all())  # false for NaN, too
