"""Text that others wrote, such as names, labels and request ids, made safe to show: the one way of doing so."""

from __future__ import annotations


def inert(text: str, limit: int | None = None, kept: str = "") -> str:
    """The text as one line that no terminal, log, mail or page obeys; escaping for a format is the writer's.

    White space of any kind becomes a blank; whatever else does not print (ANSI escapes, control characters,
    directions that reorder what is read, invisible characters, lone surrogates) becomes U+FFFD, so that a reader sees
    that something was there.

    Args:
        limit: characters at most; an ellipsis stands where something was cut.
        kept: characters that stay as they are, such as a newline.
    """
    shown = text if limit is None or len(text) <= limit else text[: limit - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in kept else " " if c.isspace() else "\ufffd" for c in shown)
