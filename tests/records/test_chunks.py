import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.errors import IntegrityError
from stream_interp.records.chunks import Joiner, sha256, split


@given(st.binary(max_size=100), st.integers(1, 40))
def test_parts_are_below_the_limit_and_add_up(data: bytes, limit: int):
    parts = split(data, limit)
    assert len(parts) >= 1
    assert all(len(part) <= limit for part in parts)
    assert b"".join(parts) == data


@given(st.data())
def test_any_interleaving_with_repeats_gives_every_record_once(data: st.DataObject):
    bodies = {name: data.draw(st.binary(min_size=1, max_size=30)) for name in "abc"}
    parts = {name: split(body, 7) for name, body in bodies.items()}
    todo = data.draw(st.permutations([(name, k) for name in bodies for k in range(len(parts[name]))]))
    joiner, whole, offset = Joiner(), {}, 0
    for name, k in todo:
        for _ in range(data.draw(st.integers(1, 2)) if len(parts[name]) > 1 and name not in whole else 1):
            body = joiner.add(name, k, len(parts[name]), parts[name][k], offset)
            offset += 1
            if body is not None:
                whole[name] = body
                break
    assert whole == bodies
    assert joiner.oldest_incomplete() is None
    assert list(joiner.incomplete()) == []


def test_the_oldest_incomplete_record_holds_back_the_commit():
    joiner = Joiner()
    joiner.add("a", 0, 2, b"x", 10)
    joiner.add("b", 1, 2, b"y", 11)
    assert joiner.oldest_incomplete() == 10
    assert joiner.add("a", 1, 2, b"z", 12) == b"xz"
    assert joiner.oldest_incomplete() == 11
    assert list(joiner.incomplete()) == ["b"]


def test_a_repeated_part_does_not_move_the_first_offset():
    joiner = Joiner()
    joiner.add("a", 0, 2, b"x", 10)
    assert joiner.add("a", 0, 2, b"x", 15) is None
    assert joiner.oldest_incomplete() == 10


@pytest.mark.parametrize(("chunk", "chunks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_part_outside_its_record_is_an_integrity_error(chunk: int, chunks: int):
    with pytest.raises(IntegrityError, match="record a"):
        Joiner().add("a", chunk, chunks, b"", 0)


def test_parts_that_disagree_on_their_number_are_an_integrity_error_and_change_nothing():
    joiner = Joiner()
    joiner.add("a", 2, 3, b"z", 0)
    with pytest.raises(IntegrityError, match="expected one below 3"):
        joiner.add("a", 0, 2, b"x", 1)
    joiner.add("a", 0, 3, b"x", 2)
    assert joiner.add("a", 1, 3, b"y", 3) == b"xyz"


def test_sha256_of_nothing():
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
