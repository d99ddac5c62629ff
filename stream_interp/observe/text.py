"""Untrusted text, made inert for logs, labels and terminals."""

from __future__ import annotations

import re

# C0, DEL and C1 (among them ESC and CSI), line and paragraph separators, directions that reorder what is read,
# invisible characters, and surrogates, which UTF-8 cannot hold.
_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)  # fmt: skip


def inert(text: str, max_chars: int = 4_000) -> str:
    """One line of text in which nothing acts on a terminal or looks like another line; longer text is cut.

    Control characters, line breaks and direction marks are shown as escapes, such as `\\n` and `\\x1b`.
    """
    cut = text if len(text) <= max_chars else f"{text[:max_chars]}… ({len(text):,} characters)"
    return _ACTIVE.sub(_escaped, cut)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
