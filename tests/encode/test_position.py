from __future__ import annotations

import pytest

from stream_interp.encode.position import METADATA_BYTES, CutPointer, Position, metadata_of, pointer_to, read_metadata
from stream_interp.errors import IntegrityError
from stream_interp.records.cut import Cut, OpenRequest, encode_cut
from stream_interp.records.envelope import read_json


def position(n: int) -> Position:
    key = "{:016x}".format
    return Position(
        b=10**9,
        ts=1_767_225_600_000,
        open={key(k): OpenRequest(10**9 - n + k, 2, 1_767_225_600_000 - k) for k in range(n)},
        dropped={key(n + k): 1_767_225_500_000 for k in range(n)},
    )


@pytest.mark.parametrize("n", [0, 1, 40])
def test_metadata_holds_the_position(n):
    text = metadata_of(position(n))
    assert text is not None
    assert len(text) <= METADATA_BYTES
    assert read_metadata(position(n).read_from, text) == position(n)


def test_a_position_that_does_not_fit_points_to_its_cut():
    large = position(100)
    assert metadata_of(large) is None
    text = pointer_to(large, 3, 77)
    assert read_metadata(large.read_from, text) == CutPointer(b=large.b, ts=large.ts, cut=(3, 77))
    cut = Cut(topic="t", partition=0, a=0, b=large.b, read_from=large.read_from, closed_at_ms=0, records=0,
              counted_records=0, pending_records=0, open=large.open, dropped=large.dropped)  # fmt: skip
    assert Position.of(read_json(encode_cut(cut).value, Cut), large.ts) == large


def test_an_offset_that_an_operator_set_is_the_position():
    assert read_metadata(42, "") == read_metadata(42, None) == Position(b=42)


@pytest.mark.parametrize("text", ["x", "[]", '{"b": "no"}', '{"b": 1, "open": 3}'])
def test_foreign_metadata_is_refused(text):
    with pytest.raises(IntegrityError, match="not ENCODE's"):
        read_metadata(1, text)
