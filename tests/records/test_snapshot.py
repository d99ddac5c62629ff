"""Snapshots come from producers that nobody here controls: whatever the bytes, the answer is typed."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.errors import InvalidSnapshot
from stream_interp.records.dlq import REASONS
from stream_interp.records.snapshot import Snapshot, decode_snapshot, encode_snapshot
from tests.topics.samples import AT_MS, SNAPSHOT, SNAPSHOT_CHUNK

GOOD = encode_snapshot(SNAPSHOT, AT_MS)
MAX_BYTES = 100_000


def decode(key: object = GOOD.key, headers: object = GOOD.headers, value: object = GOOD.value) -> Snapshot:
    return decode_snapshot(key, headers, value, MAX_BYTES)  # type: ignore[arg-type]


def reason(**record: object) -> str:
    with pytest.raises(InvalidSnapshot) as error:
        decode(**record)
    assert error.value.reason in REASONS
    return error.value.reason


def with_header(name: str, value: str | bytes | None) -> list[tuple[str, bytes | str | None]]:
    return [*(item for item in GOOD.headers if item[0] != name), (name, value)]


def tensors(**named: np.ndarray) -> bytes:
    """A safetensors buffer written by hand, so that it may hold what our writer would not write."""
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "bool": "BOOL"}
    header, data = {}, b""
    for name, array in named.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def acts(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


@pytest.mark.parametrize("snapshot", [SNAPSHOT, SNAPSHOT_CHUNK, replace(SNAPSHOT, acts_out=acts(5, 7))])
def test_round_trip(snapshot: Snapshot):
    record = encode_snapshot(snapshot, AT_MS)
    again = decode_snapshot(record.key, record.headers, record.value, MAX_BYTES)
    for name in Snapshot.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(snapshot, name))


def test_bfloat16_arrives_as_the_float32_it_was():
    values = np.array([[1.0, -2.5], [0.15625, 1e14]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    snapshot = replace(SNAPSHOT_CHUNK, acts=bits, acts_dtype="bfloat16")
    record = encode_snapshot(snapshot, AT_MS)
    again = decode_snapshot(record.key, record.headers, record.value, MAX_BYTES)
    assert again.acts.dtype == np.float32
    np.testing.assert_array_equal(again.acts, (bits.astype(np.uint32) << 16).view(np.float32))


def test_id_depends_on_the_chunk_and_not_on_the_time():
    first, later = (dict(encode_snapshot(SNAPSHOT, ms).headers)["ce_id"] for ms in (AT_MS, AT_MS + 1))
    other = dict(encode_snapshot(replace(SNAPSHOT, chunk=1, chunks=2), AT_MS).headers)["ce_id"]
    assert first == later != other


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        ("not_cloudevent", {"headers": None}),
        ("not_cloudevent", {"headers": [("x", b"y")]}),
        ("wrong_type", {"headers": with_header("ce_type", "interp.activation.snapshot.v2")}),
        ("wrong_content_type", {"headers": with_header("content-type", b"application/octet-stream")}),
        ("missing_metadata", {"headers": with_header("ce_hookname", None)}),
        ("missing_metadata", {"headers": with_header("ce_tokens", None)}),
        ("bad_metadata", {"headers": with_header("ce_modelid", b"\xff")}),
        ("bad_metadata", {"headers": with_header("ce_modelid", "m" * 513)}),
        ("bad_metadata", {"headers": with_header("ce_modelid", "a\nb")}),
        ("bad_metadata", {"headers": with_header("ce_groupkey", "s" * 513)}),
        ("bad_metadata", {"headers": with_header("ce_groupkey", "s\n")}),
        ("bad_metadata", {"headers": with_header("ce_segment", "s" * 65)}),
        ("bad_metadata", {"headers": with_header("ce_segment", "*")}),
        ("bad_metadata", {"headers": with_header("ce_tokens", "-5")}),
        ("bad_metadata", {"headers": with_header("ce_tokens", "²")}),
        ("bad_metadata", {"headers": with_header("ce_tokens", "9" * 5000)}),
        ("bad_metadata", {"headers": with_header("ce_chunk", "1")}),
        ("bad_metadata", {"headers": with_header("ce_chunks", "0")}),
        ("key_mismatch", {"key": b"another"}),
        ("key_mismatch", {"key": None}),
        ("empty", {"value": None}),
        ("empty", {"value": b""}),
        ("empty", {"value": tensors(acts=acts(0, 4))}),
        ("not_safetensors", {"value": b"PK\x03\x04 not a tensor"}),
        ("not_safetensors", {"value": (GOOD.value or b"")[:-1]}),
        ("not_safetensors", {"value": b"\xff" * 64}),
        ("oversized", {"value": b"x" * (MAX_BYTES + 1)}),
        ("missing_acts", {"value": tensors(other=acts(5, 4))}),
        ("wrong_dtype", {"value": tensors(acts=acts(5, 4, dtype="float64"))}),
        ("wrong_dtype", {"value": tensors(acts=acts(5, 4, dtype="int32"))}),
        ("wrong_shape", {"value": tensors(acts=acts(20))}),
        ("wrong_shape", {"value": tensors(acts=acts(5, 0))}),
        ("wrong_shape", {"value": tensors(acts=acts(0, 65_537))}),
        ("wrong_shape", {"value": tensors(acts=np.ones((), "float32"))}),
        ("length_mismatch", {"value": tensors(acts=acts(4, 4))}),
        ("length_mismatch", {"value": tensors(acts=acts(6, 4))}),
        ("length_mismatch", {"value": tensors(acts=acts(5, 4), acts_out=acts(4, 4))}),
        ("length_mismatch", {"value": tensors(acts=acts(5, 4), positions=np.arange(4, dtype="int32"))}),
        ("length_mismatch", {"value": tensors(acts=acts(5, 4), special_mask=acts(5, dtype="float32"))}),
        ("non_finite", {"value": tensors(acts=np.full((5, 4), np.nan, "float32"))}),
        ("non_finite", {"value": tensors(acts=np.full((5, 4), -np.inf, "float16"))}),
    ],
)
def test_bad_records_get_their_reason(expected: str, record: dict[str, object]):
    assert reason(**record) == expected


@pytest.mark.parametrize("key", [f"x{SNAPSHOT.request_id}".encode(), None])
def test_a_message_never_names_a_request(key: bytes | None):
    with pytest.raises(InvalidSnapshot, match="key_mismatch") as error:
        decode(key=key)
    assert SNAPSHOT.request_id not in str(error.value)


def test_defaults_of_tenant_and_revision():
    bare = [item for item in GOOD.headers if item[0] not in ("ce_tenant", "ce_modelrevision")]
    assert (decode(headers=bare).tenant, decode(headers=bare).model_revision) == ("default", "unversioned")


@pytest.mark.parametrize(("header", "field"), [("ce_groupkey", "group_key"), ("ce_segment", "segment")])
@pytest.mark.parametrize("name", [None, ""])
def test_a_request_may_be_of_no_group_and_no_segment(header: str, field: str, name: str | None):
    assert getattr(decode(headers=with_header(header, name)), field) == ""
    assert header not in dict(encode_snapshot(replace(SNAPSHOT, **{field: ""}), AT_MS).headers)


@given(st.binary(max_size=200))
def test_any_value_decodes_or_is_invalid(value: bytes):
    only_invalid(value=value)


@given(st.lists(st.tuples(st.integers(0, len(GOOD.value or b"") - 1), st.integers(0, 255)), max_size=6))
def test_any_flipped_bytes_decode_or_are_invalid(flips: list[tuple[int, int]]):
    value = bytearray(GOOD.value or b"")
    for at, byte in flips:
        value[at] = byte
    only_invalid(value=bytes(value))


HEADER_NAMES = st.sampled_from([name for name, _ in GOOD.headers]) | st.text(max_size=8)
HEADERS = st.lists(st.tuples(HEADER_NAMES, st.none() | st.binary(max_size=20) | st.text(max_size=20)), max_size=8)


@given(HEADERS, st.none() | st.binary(max_size=20))
def test_any_headers_and_key_decode_or_are_invalid(changed: list[tuple[str, object]], key: bytes | None):
    only_invalid(headers=[*GOOD.headers, *changed], key=key)
    only_invalid(headers=[*GOOD.headers, *changed])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
SPEC = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F16", "BF16", "F32", "F64", "F8_E4M3", "F4", "I4", "C64", "U8", "BOOL", "?"]),
    "shape": st.lists(st.sampled_from([0, 1, 2, 4, 5, 2**31, 2**62, 2**64, -1]), max_size=4) | JSON_VALUES,
    "data_offsets": st.tuples(st.integers(0, 4), st.integers(0, 90)) | JSON_VALUES,
})  # fmt: skip
NAMES = st.sampled_from(["acts", "acts_out", "positions", "special_mask", "__metadata__"])


@given(st.dictionaries(NAMES, SPEC | JSON_VALUES, max_size=3), st.binary(max_size=90), st.integers(-2, 2))
def test_any_safetensors_header_decodes_or_is_invalid(header: dict[str, object], data: bytes, off: int):
    text = json.dumps(header).encode()
    only_invalid(value=struct.pack("<Q", max(0, len(text) + off)) + text + data)


def only_invalid(**record: object) -> None:
    try:
        snapshot = decode(**record)
    except InvalidSnapshot as invalid:
        known = invalid.reason in REASONS
        assert known
    else:
        assert snapshot.acts.ndim == 2
        assert np.isfinite(snapshot.acts).all()
