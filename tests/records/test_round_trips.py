"""Every other record: what is written is what is read, and what is no record is an IntegrityError."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stream_interp.errors import IntegrityError
from stream_interp.records import alert, cut, delivery, dlq, example, heartbeat, status
from stream_interp.records.arrays import pack, unpack
from stream_interp.records.chunks import Joiner
from stream_interp.records.control import read_baseline, read_projector
from stream_interp.records.envelope import Envelope, header_map, json_record, read_json, rfc3339
from stream_interp.records.lane import Lane, digest
from stream_interp.records.window import WindowHeader, decode_window, encode_window
from tests.topics import samples as s

RECORDS: list[tuple[msgspec.Struct, Callable[[Any], Envelope], str]] = [
    (s.ALERT_STATE, alert.encode_alert_state, s.ALERT.incident_id),
    (s.CUT, cut.encode_cut, "interp.activations/0"),
    (s.DELIVERY, delivery.encode_delivery, f"webhook/{s.ALERT.event_id}"),
    (s.EXAMPLE, example.encode_example, s.LANE.lane_id),
    (s.HEARTBEAT, heartbeat.encode_heartbeat, "encode-0"),
    (s.STATUS, status.encode_status, s.LANE.lane_id),
    (s.STATUS_CRITICAL, status.encode_status, s.LANE.lane_id),
    (s.MARKER, lambda marker: json_record(marker.lane.lane_id, "interp.marker.v1", marker), s.LANE.lane_id),
]


@pytest.mark.parametrize(("record", "encode", "key"), RECORDS, ids=lambda value: type(value).__name__)
def test_json_records(record: msgspec.Struct, encode: Callable[[Any], Envelope], key: str):
    envelope = encode(record)
    assert envelope.key == key.encode()
    assert header_map(envelope.headers)["content-type"] == "application/json"
    assert read_json(envelope.value, type(record)) == record


@pytest.mark.parametrize(("record", "encode", "key"), RECORDS, ids=lambda value: type(value).__name__)
def test_unknown_fields_of_a_newer_writer_are_passed_over(
    record: msgspec.Struct, encode: Callable[[Any], Envelope], key: str
):
    newer = msgspec.json.decode(encode(record).value or b"") | {"field_of_tomorrow": [1]}
    assert read_json(msgspec.json.encode(newer), type(record)) == record


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"schema_version": 2}'])
def test_what_is_no_record_is_an_integrity_error(value: bytes | None):
    with pytest.raises(IntegrityError, match="not a Status record"):
        read_json(value, status.Status)


def test_alerts_are_cloudevents():
    envelope = alert.encode_alert(s.ALERT)
    event = msgspec.json.decode(envelope.value or b"")
    assert header_map(envelope.headers)["content-type"].startswith("application/cloudevents+json")
    assert (event["specversion"], event["id"], event["type"]) == ("1.0", s.ALERT.event_id, alert.CE_TYPE)
    assert alert.decode_alert(envelope.value) == s.ALERT


def test_an_event_of_another_type_is_no_alert():
    event = msgspec.json.decode(alert.encode_alert(s.ALERT).value or b"") | {"type": "interp.alert.transition.v2"}
    with pytest.raises(IntegrityError):
        alert.decode_alert(msgspec.json.encode(event))


def test_event_ids_differ_by_each_of_their_causes():
    position = alert.Position(partition=1, offset=2)
    base = (s.LANE, 1, "opened", position)
    others = [
        (Lane(model_id="m", hook_name="h"), *base[1:]),
        (s.LANE, 2, "opened", position),
        (s.LANE, 1, "resolved", position),
        (s.LANE, 1, "opened", alert.Position(partition=1, offset=3)),
    ]
    assert alert.event_id(*base) == alert.event_id(*base)
    assert len({alert.event_id(*cause) for cause in [base, *others]}) == 5


def test_dead_letters_keep_the_raw_key_and_any_header():
    headers = [("h", b"\xff\x00"), ("n", None), ("s", "text")]
    letter = msgspec.structs.replace(s.DEAD_LETTER, headers_base64=dlq.base64_headers(headers))
    envelope = dlq.encode_dead_letter(letter, b"\xfe")
    assert envelope.key == b"\xfe"
    assert header_map(envelope.headers)["ce_reason"] == "non_finite"
    assert read_json(envelope.value, dlq.DeadLetter) == letter


@pytest.mark.parametrize("chunk_bytes", [100, 4_000, 900_000])
def test_windows_in_chunks(chunk_bytes: int):
    records = encode_window(s.WINDOW, chunk_bytes)
    joiner, whole = Joiner(), None
    for offset, record in enumerate(records):
        headers = header_map(record.headers)
        window, k, n = headers["ce_window"], int(headers["ce_chunk"]), int(headers["ce_chunks"])
        assert (window, n) == (s.WINDOW.header.window_id, len(records))
        assert whole is None
        whole = joiner.add(window, k, n, record.value or b"", offset)
    assert whole is not None
    again = decode_window(whole)
    assert again.header == s.WINDOW.header
    assert set(again.arrays) == set(s.WINDOW.arrays)
    for name, array in s.WINDOW.arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)


DTYPES = st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?"])
SHAPES = array_shapes(min_dims=0, min_side=0)


@given(st.dictionaries(st.text(min_size=1, max_size=6), arrays(DTYPES, SHAPES), max_size=4))
def test_any_arrays_survive(named: dict[str, np.ndarray]):
    named.pop("__metadata__", None)
    header, again = unpack(pack(s.HEARTBEAT, named), heartbeat.Heartbeat)
    assert header == s.HEARTBEAT
    assert set(again) == set(named)
    for name, array in named.items():
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("header", [s.WINDOW.header, read_projector(s.PROJECTOR)[0], read_baseline(s.BASELINE)[0]])
def test_headers_of_before_compute_dtype_mean_float32(header: Any):
    older = msgspec.to_builtins(header)
    assert older.pop("compute_dtype") == "bfloat16"
    older.pop("proposed_dtype", None)
    read = msgspec.convert(older, type(header))
    assert (read.compute_dtype, getattr(read, "proposed_dtype", "")) == ("float32", "")


def test_a_proposal_is_a_word():
    with pytest.raises(IntegrityError, match="proposed_dtype"):
        decode_window(pack(msgspec.structs.replace(s.WINDOW_FIT.header, proposed_dtype="x" * 33), {}))


@pytest.mark.parametrize("name", ["length_histogram", "start_histogram"])
def test_a_histogram_of_another_shape_is_refused_or_numpy_would_spread_it(name: str):
    with pytest.raises(IntegrityError, match=f"{name} of shape"):
        decode_window(pack(s.WINDOW.header, {**s.WINDOW.arrays, name: np.ones(1, np.int64)}))


@pytest.mark.parametrize(
    "segments", [{"cards": -1}, {"": 2}, {"x" * 65: 1}, {f"s{k}": 1 for k in range(65)}, {"cards": 3, "loans": 2**70}]
)
def test_segments_that_no_requests_can_have_are_refused(segments: dict[str, int]):
    with pytest.raises(IntegrityError, match="segments"):
        decode_window(pack(msgspec.structs.replace(s.WINDOW.header, segments=segments), s.WINDOW.arrays))


PACKED = pack(s.WINDOW.header, s.WINDOW.arrays)


@given(st.binary(max_size=100) | st.integers(0, len(PACKED) - 1).map(lambda n: PACKED[:n]))
def test_malformed_windows_are_integrity_errors(data: bytes):
    with pytest.raises(IntegrityError, match="WindowHeader"):
        unpack(data, WindowHeader)


def test_deeply_nested_headers_are_integrity_errors():
    with pytest.raises(IntegrityError):
        decode_window((100_000).to_bytes(8, "little") + b"[" * 100_000)


def test_lane_ids_do_not_collide_by_joining():
    assert digest("ab", "c") != digest("a", "bc")
    assert Lane(model_id="ab", hook_name="c").lane_id != Lane(model_id="a", hook_name="bc").lane_id
    assert len(s.LANE.lane_id) == 16


def test_times_are_rfc3339_in_utc():
    assert rfc3339(s.AT_MS + 7) == "2026-01-01T00:00:00.007Z"
