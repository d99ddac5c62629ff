"""Selectors in PromQL expressions; enough of the language for ours."""

from __future__ import annotations

import re

_SELECTOR = re.compile(r"\b(?:stream_interp_\w+|process_\w+|up)\b(?!\s*\()(?:\{[^}]*\})?")
_GROUPING = re.compile(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")


def selectors(expression: str) -> list[str]:
    """The vector selectors, without ranges, each once."""
    return sorted(set(_SELECTOR.findall(_GROUPING.sub("", expression))))


def metric_names(expression: str) -> list[str]:
    """The names in them."""
    return sorted({selector.partition("{")[0] for selector in selectors(expression)})
