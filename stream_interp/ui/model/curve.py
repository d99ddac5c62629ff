"""A curve of bounded length over an unbounded time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

Point = TypeVar("Point")
MAX_POINTS = 256


class Curve(Generic[Point]):
    """The newest point, and earlier ones evenly thinned: at MAX_POINTS every second one goes and the stride doubles."""

    def __init__(self) -> None:
        self._kept: list[Point] = []
        self._newest: Point | None = None
        self._stride, self._seen = 1, 0

    def add(self, point: Point) -> None:
        """A point later than all before."""
        self._newest = point
        if self._seen % self._stride == 0:
            self._kept.append(point)
        self._seen += 1
        if len(self._kept) >= MAX_POINTS:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    @property
    def points(self) -> Sequence[Point]:
        """In order of time, the newest always last."""
        if self._newest is None or self._kept[-1] is self._newest:
            return tuple(self._kept)
        return (*self._kept, self._newest)
