"""A line chart as the numbers of an inline SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 232, 48, 8, 12, 32
MAX_BUCKETS = 240
_TICKS = 4
Value = float | None


class Line(NamedTuple):
    """One series: its segments as SVG point lists, and its last value as text."""

    name: str
    segments: list[str]
    last: str


class Chart(NamedTuple):
    """Everything that the template draws, in SVG user units; `level_y` is where the series alarm, or were before."""

    title: str
    lines: list[Line]
    ticks: list[tuple[float, str]]
    level_y: float | None
    marks: list[tuple[float, str]]


def chart(
    title: str,
    series: Mapping[str, Sequence[Value]],
    *,
    level: float | None,
    marks: Sequence[tuple[int, str]] = (),
    floor: float = -math.inf,
) -> Chart:
    """A chart of series over the same windows.

    Args:
        title: what is drawn, with its unit.
        series: values by name, all of one length; None is a gap.
        level: drawn as a dashed line.
        marks: (index of a window, what happened there).
        floor: smaller values are drawn at it.
    """
    known = [max(v, floor) for values in series.values() for v in values if v is not None]
    bounds = [*known, *([] if level is None else [level])] or [0.0, 1.0]
    low, high = min(bounds), max(bounds)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    count = max((len(values) for values in series.values()), default=1)

    def x(index: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * index / max(count - 1, 1), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - max(value, floor)) / (high - low), 1)

    lines = [
        Line(name, [" ".join(f"{x(i)},{y(v)}" for i, v in s) for s in _segments(values)], _last(values))
        for name, values in series.items()
    ]
    ticks = [low + (high - low) * k / _TICKS for k in range(_TICKS + 1)]
    return Chart(
        title, lines, [(y(t), f"{t:.3g}") for t in ticks], None if level is None else y(level),
        [(x(i), name) for i, name in marks],
    )  # fmt: skip


def _segments(values: Sequence[Value]) -> Iterator[list[tuple[int, float]]]:
    """Unbroken stretches, thinned to the smallest and the largest value of each of at most MAX_BUCKETS buckets."""
    size, run = max(1, math.ceil(len(values) / MAX_BUCKETS)), list[tuple[int, float]]()
    for start in range(0, len(values), size):
        bucket = [(i, v) for i, v in enumerate(values[start : start + size], start) if v is not None]
        if bucket:
            run += sorted({min(bucket, key=_value), max(bucket, key=_value)})
        elif run:
            yield run
            run = []
    if run:
        yield run


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _last(values: Sequence[Value]) -> str:
    return next((f"{v:.3g}" for v in reversed(values) if v is not None), "–")
