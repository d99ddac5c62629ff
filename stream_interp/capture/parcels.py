"""Parcel → the records of each of its requests. Runs in the worker; pure but for the wait on the device."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_interp.capture.chunking import split_tokens
from stream_interp.capture.outbox import Parcel
from stream_interp.capture.tensors import as_floats, to_host
from stream_interp.errors import UsageError
from stream_interp.records.envelope import Envelope
from stream_interp.records.segments import is_segment
from stream_interp.records.snapshot import MAX_NAME_CHARS, SEGMENT_EXPECTED, Snapshot, encode_snapshot

SHOWN_CHARS = 80  # of a name that is refused; request ids and group keys are never shown

HostArrays = dict[str, NDArray[np.generic]]


class Origin(msgspec.Struct, frozen=True):
    """Whose activations these are.

    Raises:
        UsageError: from `check_name`, for a part that no consumer would accept.
    """

    tenant: str
    model_id: str
    model_revision: str

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_name(name, getattr(self, name))


def check_name(what: str, name: str) -> None:
    """Raises UsageError for a name that a consumer would send to the dead letters."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        kind = f"{type(name).__name__} of {len(str(name)):,} characters"
        found = kind if what in ("request_id", "group_key") or len(str(name)) > SHOWN_CHARS else repr(name)
        raise UsageError(f"{what} is {found}; expected 1 to {MAX_NAME_CHARS} printable characters")


def host_arrays(parcel: Parcel) -> HostArrays:
    """The parcel's arrays in host memory; waits for the device."""
    return {name: to_host(owned) for name, owned in parcel.arrays.items()}


def request_records(parcel: Parcel, arrays: HostArrays, row: int, origin: Origin, max_bytes: int) -> list[Envelope]:
    """All records of the parcel's request in `row`, without its padding tokens.

    Raises:
        UsageError: it cannot be sent as a snapshot; says why.
    """
    check_name("hook_name", parcel.hook_name)
    check_name("request_id", parcel.request_ids[row])
    if parcel.group_keys[row]:
        check_name("group_key", parcel.group_keys[row])
    if not is_segment(segment := parcel.segments[row]):
        raise UsageError(f"segment of {len(segment)} characters; expected {SEGMENT_EXPECTED}")
    rows = {name: array[row] for name, array in arrays.items()}
    if "keep" in rows:
        rows = _without_padding(rows)
    acts, acts_dtype = as_floats(rows["acts"])
    acts_out = as_floats(rows["acts_out"])[0] if "acts_out" in rows else None
    positions, special_mask = rows.get("positions"), rows.get("special_mask")
    snapshot = Snapshot(
        tenant=origin.tenant,
        model_id=origin.model_id,
        model_revision=origin.model_revision,
        hook_name=parcel.hook_name,
        request_id=parcel.request_ids[row],
        acts=acts,
        acts_dtype=acts_dtype,
        acts_out=acts_out,
        positions=None if positions is None else positions.astype(np.int32),
        special_mask=None if special_mask is None else special_mask.astype(np.bool_),
        request_tokens=len(acts),
        group_key=parcel.group_keys[row],
        segment=segment,
    )
    return [encode_snapshot(chunk, parcel.time_ms) for chunk in split_tokens(snapshot, max_bytes)]


def _without_padding(rows: HostArrays) -> HostArrays:
    mask = rows["keep"]
    if mask.dtype.kind == "f" and bool(np.signbit(mask).any()):
        raise UsageError("attention_mask holds negative numbers; expected 1 for tokens and 0 for padding")
    keep = mask.astype(np.bool_)
    kept = {name: array[keep] for name, array in rows.items() if name != "keep"}
    return {"positions": np.arange(int(keep.sum())), **kept}
