"""Requests by segment: in any order and in any parts the same, and never more names than there is room for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.records.segments import MANY, MAX_CHARS, MOST, added, counted, is_segment

NAMES = st.lists(st.integers(0, MOST + 8).map(lambda k: f"s{k}" if k else ""), max_size=400)


@given(NAMES, st.data())
def test_parts_add_up_to_the_whole(names: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(names))
    cut = data.draw(st.integers(0, len(names)))
    whole = counted(names)
    assert added(counted(shuffled[:cut]), counted(shuffled[cut:])) == whole
    assert list(whole) == sorted(whole)
    assert sum(whole.values()) == sum(map(bool, names))


def test_one_name_too_many_costs_few_their_own_count() -> None:
    most = [f"s{k}" for k in range(MOST)]
    assert counted(most) == dict.fromkeys(sorted(most), 1)
    one_more = counted([*most, "one more", ""])
    assert len(one_more) == MOST
    assert one_more.pop(MANY) == 2
    assert set(one_more.values()) == {1}
    assert len(added(one_more, dict.fromkeys(one_more, 5))) == MOST - 1


@pytest.mark.parametrize("name", ["", "cards", "Konto – EU", "x" * MAX_CHARS])
def test_names(name: str) -> None:
    assert is_segment(name)


@pytest.mark.parametrize("name", [MANY, "x" * (MAX_CHARS + 1), "a\nb", "\x1b[31m", "\u202e"])
def test_no_names(name: str) -> None:
    assert not is_segment(name)
