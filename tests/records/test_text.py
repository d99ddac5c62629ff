from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_interp.records.text import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Ünïcödé 漢字 <b>", "plain Ünïcödé 漢字 <b>"),
        ("two\nlines\r\n", "two lines  "),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("\x9b31m", "�31m"),
        ("a\u2028b\u202ec\u200bd", "a b�c�d"),
        ("\ud800", "�"),
    ],
)
def test_nothing_acts(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_long_text_is_cut_and_says_so() -> None:
    assert inert("x" * 10_000, 5) == "xxxx…"
    assert inert("xxxxx", 5) == "xxxxx"


def test_what_is_kept_stays() -> None:
    assert inert("a\nb\tc\x1b", kept="\n\t") == "a\nb\tc�"


@given(st.text(st.characters(), max_size=200))
def test_any_text_is_one_line_that_utf8_can_hold(text: str) -> None:
    shown = inert(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
