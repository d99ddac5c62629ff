"""Untrusted text made inert: for any text at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_interp.notify.sinks.text import one_line, plain, safe_id

ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@given(ANY, st.integers(1, 80))
def test_one_line_is_one_inert_line(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if ord(c) < 32 or 0x7F <= ord(c) < 0xA0]
    shown.encode()


@given(ANY, st.integers(1, 80))
def test_plain_keeps_lines_and_nothing_else_that_controls(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert not [c for c in shown if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
    shown.encode()


@given(ANY)
def test_ids_are_safe_and_stay_apart(text: str) -> None:
    shown = safe_id(text, 80)
    assert shown.isascii()
    assert shown.isprintable()
    assert 0 < len(shown) <= 80
    assert "." not in shown
    assert shown != safe_id(text + "x", 80)


def test_what_is_harmless_stays_as_it_is() -> None:
    text = "naïve Ωμέγα 日本語 🙂 <b>&</b>\n\tsecond line"
    assert plain(text, 100) == text
    assert safe_id("incident/5d4c:1", 80) == "incident/5d4c:1"
    assert one_line("\u202eevil", 80) == "�evil"
