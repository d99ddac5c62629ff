"""Snapshots that no worker may count, each with the reason it must be set aside for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stream_interp.records.arrays import write_tensors
from stream_interp.records.envelope import Envelope
from stream_interp.records.snapshot import Snapshot, encode_snapshot


def _good(i: int, d_in: int) -> Envelope:
    acts = np.ones((3, d_in), np.float16)
    return encode_snapshot(
        Snapshot(model_id="m", hook_name="layer.1", request_id=f"bad{i}", acts=acts, acts_dtype="float16",
                 request_tokens=3), 0,
    )  # fmt: skip


def _header(name: str, value: bytes | None) -> Callable[[Envelope, int], Envelope]:
    def change(e: Envelope, _: int) -> Envelope:
        kept = [(k, v) for k, v in e.headers if k != name]
        return e._replace(headers=kept if value is None else [*kept, (name, value)])

    return change


def _tensors(make: Callable[[int], dict[str, np.ndarray]]) -> Callable[[Envelope, int], Envelope]:
    return lambda e, d_in: e._replace(value=write_tensors(make(d_in)))


def _acts(d_in: int, value: float = 1.0, dtype: str = "float16") -> np.ndarray:
    return np.full((3, d_in), value, dtype)


KINDS: list[tuple[str, Callable[[Envelope, int], Envelope]]] = [
    ("not_cloudevent", lambda e, _: e._replace(headers=[])),
    ("wrong_type", _header("ce_type", b"interp.activation.snapshot.v9")),
    ("wrong_content_type", _header("content-type", b"application/x-python-pickle")),
    ("missing_metadata", _header("ce_hookname", None)),
    ("missing_metadata", _header("ce_chunk", None)),
    ("bad_metadata", _header("ce_chunks", b"-1")),
    ("bad_metadata", _header("ce_modelid", b"\xff\xfe")),
    ("bad_metadata", _header("ce_chunk", b"7")),
    ("bad_metadata", _header("ce_tokens", b"0")),
    ("key_mismatch", lambda e, _: e._replace(key=b"another")),
    ("empty", lambda e, _: e._replace(value=None)),
    ("empty", lambda e, d: e._replace(value=write_tensors({"acts": np.zeros((0, d), np.float16)}))),
    ("not_safetensors", lambda e, _: e._replace(value=e.value[:-3])),
    ("not_safetensors", lambda e, _: e._replace(value=b"\x80\x04\x95garbage")),
    ("not_safetensors", lambda e, _: e._replace(value=(2**60).to_bytes(8, "little") + b"{}")),
    ("oversized", lambda e, _: e._replace(value=e.value + bytes(20_000))),
    ("missing_acts", _tensors(lambda d: {"weights": _acts(d)})),
    ("wrong_dtype", _tensors(lambda d: {"acts": _acts(d, dtype="int32")})),
    ("wrong_dtype", _tensors(lambda d: {"acts": _acts(d, dtype="float64")})),
    ("wrong_shape", _tensors(lambda d: {"acts": _acts(d)[0]})),
    ("wrong_d_in", _tensors(lambda d: {"acts": _acts(d + 1)})),
    ("length_mismatch", _tensors(lambda d: {"acts": _acts(d)[:2]})),
    ("length_mismatch", _tensors(lambda d: {"acts": _acts(d), "special_mask": np.zeros(5, bool)})),
    ("non_finite", _tensors(lambda d: {"acts": _acts(d, np.nan)})),
    ("non_finite", _tensors(lambda d: {"acts": _acts(d, -np.inf, "float32")})),
    ("non_finite", _tensors(lambda d: {"acts": _acts(d, 3e38, "float32")})),  # its square is not finite
]


def bad_snapshots(n: int, d_in: int) -> list[tuple[Envelope, str]]:
    """`n` records in turn of every kind, with the reason of each."""
    made = []
    for i in range(n):
        reason, change = KINDS[i % len(KINDS)]
        made.append((change(_good(i, d_in), d_in), reason))
    return made
