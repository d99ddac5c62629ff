"""Text that others wrote, such as names, labels and request ids, made safe to show."""

from __future__ import annotations


def inert(text: str) -> str:
    """The text as one line that no terminal, log or page obeys.

    White space of any kind becomes a blank; whatever else does not print (ANSI escapes, control characters,
    bidirectional overrides, lone surrogates) becomes U+FFFD, so that a reader sees that something was there.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
