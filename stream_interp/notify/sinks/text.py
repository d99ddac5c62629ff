"""Untrusted text made inert and short. Pure."""

from __future__ import annotations

import re
import unicodedata

from stream_interp.notify.notification import Notification
from stream_interp.records.lane import digest

_BIDI = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # they reorder what follows
_WEB = re.compile(r"https?://[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
LINK_CHARACTERS = 2_000
_INERT = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators


def plain(text: str, limit: int) -> str:
    """At most `limit` characters that every encoding takes; control characters but newline and tab as `\\x1b`."""
    return short("".join(_inert(c, "\n\t") for c in text[: limit + 1].replace("\r\n", "\n")), limit)


def one_line(text: str, limit: int) -> str:
    """The same on one line: each run of white space is one space."""
    return short("".join(_inert(c, "") for c in " ".join(text[: 4 * limit].split())), limit)


def short(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape_html(text: str) -> str:
    """`&`, `<` and `>` as entities: no tag, no link, no mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def web_links(notification: Notification) -> dict[str, str]:
    """Its links that a browser can open, by name; a path of the source tree is none, nor is what is no valid URI."""
    links = notification.links.items()
    return {one_line(name, 40): url for name, url in links if len(url) <= LINK_CHARACTERS and _WEB.fullmatch(url)}


def safe_id(text: str, limit: int) -> str:
    """An id as it is where letters, digits and `._:/-` make it up and it is short enough; else its hash."""
    return text if re.fullmatch(r"[A-Za-z0-9._:/-]+", text) and len(text) <= limit else digest(plain(text, len(text)))


def _inert(character: str, kept: str) -> str:
    if character in kept:
        return character
    if character in _BIDI or unicodedata.category(character) in _INERT:
        return character.encode("unicode_escape").decode()
    return character
