"""Text that others wrote, and numbers, as people are shown them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby

from stream_interp.records.text import inert

LIMIT = 160  # characters of any one name or reason on the page


class Cut(str):
    """Text that `cut` has made safe to show; a limit of its own is not cut again."""

    __slots__ = ()


def cut(text: str, limit: int = LIMIT) -> Cut:
    """At most `limit` characters, on one line, without anything that a terminal or a browser would obey."""
    return Cut(inert(text, limit))


def age(seconds: float | None) -> str:
    """How long ago, in its two largest units at most: `12 s`, `3 min`, `5 h 20 min`, `4 d 2 h`."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def instant(epoch_ms: int | None) -> str:
    """Unix epoch milliseconds as `2026-01-31 09:30:00` UTC; what no calendar holds as its number."""
    if epoch_ms is None:
        return "–"
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{epoch_ms} ms"


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent for everyday sizes; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or (value == int(value) if abs(value) < 1e15 else False):
        return f"{int(value):,}"
    return f"{value:,.{digits}g}" if abs(value) < 10 ** (digits + 3) else f"{value:.{digits}e}"


def percent(share: float | None) -> str:
    """A share of 1 as percent: two significant digits, more where it is close to 0 or 1."""
    if share is None:
        return "–"
    if share in (0, 1):
        return f"{share:.0%}"
    if share > 0.99:
        return f"{min(share, 0.9999):.2%}"
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:.2g}%"


def held(partitions: Iterable[str]) -> list[str]:
    """`topic/n` of many partitions by topic, runs of numbers as `topic 0–5`; what is not of that form as it is."""
    of_topic: dict[str, list[int]] = {}
    others: list[str] = []
    for partition in partitions:
        topic, _, number_ = partition.rpartition("/")
        if topic and number_.isascii() and number_.isdigit() and len(number_) < 9:
            of_topic.setdefault(topic, []).append(int(number_))
        else:
            others.append(partition)
    return [f"{topic} {', '.join(_runs(sorted(numbers)))}" for topic, numbers in sorted(of_topic.items())] + others


def _runs(numbers: list[int]) -> list[str]:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
