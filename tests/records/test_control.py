import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.errors import IntegrityError
from stream_interp.records import control
from stream_interp.records.chunks import sha256
from stream_interp.records.control import (
    ControlReader,
    Marker,
    Order,
    Versioned,
    encode_control,
    is_ahead,
    make_control,
    make_order,
    read_baseline,
    read_order,
    read_projector,
)
from stream_interp.records.envelope import Envelope
from stream_interp.records.lane import Lane
from stream_interp.settings import DriftSettings
from tests.topics.samples import BASELINE, PROJECTOR


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PART_BYTES", 100)


def whole(record: Versioned, seed: float = 0.0, by: int = 0) -> Versioned:
    """The record again with other numbers, under a later version if `by`."""
    header, arrays = read_baseline(record)
    later = {name: array + np.asarray(seed, array.dtype) for name, array in arrays.items()}
    fields = {name: getattr(header, name) for name in header.__struct_fields__} | {"version": header.version + by}
    return make_control("baseline", type(header)(**fields), later, "test", "")


def feed(reader: ControlReader, records: list[Envelope]) -> list[Versioned]:
    return [done for r in records if (done := reader.add(r.key.decode(), r.value)) is not None]


def test_parts_first_manifest_last():
    keys = [record.key.decode().rpartition("/")[2] for record in encode_control(whole(BASELINE))]
    assert len(keys) > 3
    assert keys == [*map(str, range(len(keys) - 1)), "manifest"]


def test_round_trip_of_both_kinds():
    for record, read in ((PROJECTOR, read_projector), (BASELINE, read_baseline)):
        (again,) = feed(ControlReader(), encode_control(make_control(record.manifest.kind, *read(record), "a", "b")))
        header, arrays = read(again)
        assert header == read(record)[0]
        for name, array in read(record)[1].items():
            np.testing.assert_array_equal(arrays[name], array)


@given(st.data())
def test_interleaved_versions_in_any_order_each_become_whole_once(data: st.DataObject):
    versions = [whole(BASELINE, by, by) for by in range(3)]
    records = [r for version in versions for r in encode_control(version)]
    done = feed(ControlReader(), data.draw(st.permutations(records)))
    assert sorted(d.manifest.version for d in done) == [v.manifest.version for v in versions]
    assert {d.manifest.version: d.body for d in done} == {v.manifest.version: v.body for v in versions}


@given(st.data())
def test_repeated_parts_change_nothing(data: st.DataObject):
    record = whole(BASELINE)
    *parts, manifest = encode_control(record)
    repeated = data.draw(st.permutations(parts + parts[: data.draw(st.integers(0, len(parts)))]))
    (done,) = feed(ControlReader(), [*repeated, manifest])
    assert done.body == record.body


def test_parts_of_an_older_write_under_the_same_key_wait_for_the_right_ones():
    old, new = whole(BASELINE, 1.0), whole(BASELINE, 2.0)
    *old_parts, _ = encode_control(old)
    *new_parts, manifest = encode_control(new)
    reader = ControlReader()
    assert feed(reader, [*old_parts, manifest]) == []
    (done,) = feed(reader, new_parts)
    assert done.body == new.body


def test_compaction_keeps_the_newer_manifest():
    old, new = whole(BASELINE, 1.0), whole(BASELINE, 2.0)
    *_, old_manifest = encode_control(old)
    (done,) = feed(ControlReader(), [old_manifest, *encode_control(new)])
    assert done.manifest == new.manifest


def test_a_missing_part_or_manifest_keeps_a_version_out():
    records = encode_control(whole(BASELINE))
    assert feed(ControlReader(), records[1:]) == []
    assert feed(ControlReader(), records[:-1]) == []


@pytest.mark.parametrize("last", ["²", "9" * 5000, "-1", "note", ""])
def test_keys_of_other_shapes_are_passed_over(last: str):
    assert ControlReader().add(f"baseline/lane/1/{last}", b"x") is None
    assert ControlReader().add("no-slash", b"x") is None


def test_a_manifest_without_parts_is_a_version_without_bytes():
    manifest = msgspec.structs.replace(BASELINE.manifest, parts=0, bytes=0, sha256=sha256(b""))
    done = ControlReader().add(f"{manifest.key}/manifest", msgspec.json.encode(manifest))
    assert done == Versioned(manifest, b"")


def test_tombstones_are_passed_over():
    assert ControlReader().add("baseline/lane/1/manifest", None) is None


@pytest.mark.parametrize("value", [b"", b"{}", b"[" * 60_000, b'{"kind": "unknown"}'])
def test_a_manifest_that_cannot_be_read_is_an_integrity_error(value: bytes):
    with pytest.raises(IntegrityError, match="Manifest"):
        ControlReader().add("baseline/lane/1/manifest", value)


def test_a_marker_of_a_newer_version_can_be_read() -> None:
    marker = Marker(
        kind="baseline", lane=Lane(model_id="m", hook_name="h"), version=1, drift=DriftSettings(tolerance=2)
    )
    newer = msgspec.json.decode(msgspec.json.encode(marker))
    newer["drift"]["a_later_setting"] = 1
    newer["a_later_field"] = 1
    assert msgspec.json.decode(msgspec.json.encode(newer), type=Marker) == marker


def test_a_version_from_the_future_outdates_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "PART_BYTES", 900_000)
    lane, now_ms = Lane(model_id="m", hook_name="h"), 1_800_000_000_000
    forged, reader = make_order(Order(kind="relearn", lane=lane, version=2**62), "eve", "for ever"), ControlReader()
    *parts, manifest = encode_control(forged)
    for part in parts:
        reader.add(part.key.decode(), part.value, now_ms)
    with pytest.raises(IntegrityError, match="a day after the log took it"):
        reader.add(manifest.key.decode(), manifest.value, now_ms)
    records = encode_control(make_order(Order(kind="relearn", lane=lane, version=now_ms + 3_600_000), "ann", "soon"))
    done = [reader.add(record.key.decode(), record.value, now_ms) for record in records]
    assert done[-1] is not None
    assert is_ahead(2**62, -1) is False  # the log does not say when


def test_parts_whose_manifest_never_comes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_WAITING_BYTES", 10_000)
    reader, records = ControlReader(), encode_control(whole(BASELINE))
    for number in range(50):
        reader.add(f"baseline/x/{number}/0", bytes(1_000))
        reader.add(f"baseline/x/{number}/0", bytes(1_000))  # once more: counted once
    assert len(reader._parts) == 10
    (done,) = feed(reader, records)
    assert reader._waiting_bytes == sum(len(part) for parts in reader._parts.values() for part in parts.values())
    assert done.manifest == whole(BASELINE).manifest


def test_an_order_that_does_not_fit_into_an_answer_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "PART_BYTES", 900_000)
    lane, endless = Lane(model_id="m", hook_name="h"), Lane(model_id="m" * 500_000, hook_name="h")
    for order, author in (
        (Order(kind="silence", lane=endless, version=1), "eve"),
        (Order(kind="silence", lane=lane, version=1), "e" * 500_000),
    ):
        with pytest.raises(IntegrityError, match=r"a manifest of 50\d,\d+ bytes; expected at most 65,536"):
            feed(ControlReader(), encode_control(make_order(order, author, "")))
    long = make_order(Order(kind="ack", lane=lane, version=1, incident_id="i" * 500_000), "eve", "")
    with pytest.raises(IntegrityError, match="an order of 500,"):
        read_order(long)
