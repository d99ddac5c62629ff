"""Where lines and marks lie in a chart. Pure geometry in user units; the templates draw it as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stream_interp.ui.text import instant
from stream_interp.ui.views.incident import Rate
from stream_interp.ui.views.lane import Signal
from stream_interp.ui.views.paths import CRITICAL_LOG10, Path

WIDTH = 1_000  # the plot is stretched to its column; heights are pixels
DRAWN_LOG10 = (-4.0, 6.0)
_X_TICKS, _Y_TICKS, _MARKED = 4, 4, 12


@dataclass(frozen=True)
class Tick:
    """A height in the plot and what is written there."""

    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One series as the `d` of an SVG path: its line, and its points where they are few."""

    name: str
    d: str
    dots: str
    number: int


@dataclass(frozen=True)
class Rule:
    """A horizontal line with a meaning."""

    y: float
    text: str
    kind: str


@dataclass(frozen=True)
class Moment:
    """A vertical line with a meaning."""

    x: float
    text: str
    kind: str


@dataclass(frozen=True)
class Chart:
    """All of a chart; y grows downwards. `below` is written under it, evenly spread."""

    width: int
    height: int
    lines: tuple[Line, ...]
    rules: tuple[Rule, ...]
    moments: tuple[Moment, ...]
    ticks: tuple[Tick, ...]
    below: tuple[str, ...]


Points = Sequence[tuple[int, float]]


def evidence_chart(paths: Sequence[Path], change: int | None, opened: int, height: int = 230) -> Chart | None:
    """log10 of statistic over threshold, request by request; alarms at 0. None without a point.

    Args:
        paths: of the tests; what lies beyond DRAWN_LOG10 is drawn at its edge.
        change: request at which the change began, by estimate.
        opened: request at which the incident opened.
        height: pixels.
    """
    low, high = DRAWN_LOG10
    series = [(path.name, [(at, min(max(v, low), high)) for at, v in path.points]) for path in paths]
    if not any(points for _, points in series):
        return None
    moments = [(opened, "opened", "opened")] + ([] if change is None else [(change, "change began", "change")])
    x = _Scale([*(at for _, points in series for at, _ in points), *(at for at, _, _ in moments)], 0, WIDTH)
    y = _Scale([*(v for _, points in series for _, v in points), 0.0, CRITICAL_LOG10], height - 6, 8)
    step = y.nice_step(_Y_TICKS, whole=True)
    return Chart(
        width=WIDTH, height=height, lines=tuple(_line(k, *held, x, y) for k, held in enumerate(series)),
        rules=(_rule(y, 0.0, "alarm", "threshold"), _rule(y, CRITICAL_LOG10, "critical", "critical")),
        moments=tuple(Moment(round(x.at(at), 1), text, kind) for at, text, kind in moments),
        ticks=tuple(Tick(round(y.at(v), 1), _power(v)) for v in y.multiples(step)),
        below=tuple(f"{round(value):,}" for value in x.spread(_X_TICKS)),
    )  # fmt: skip


def health_chart(signal: Signal, height: int = 110) -> Chart | None:
    """One health signal over time beside its baseline. None without a point."""
    if not signal.points:
        return None
    known = [] if signal.baseline is None else [signal.baseline]
    x = _Scale([at for at, _ in signal.points], 0, WIDTH, least=2_000.0)
    y = _Scale([*(v for _, v in signal.points), *known], height - 6, 8)
    step = y.nice_step(_Y_TICKS, whole=False)
    return Chart(
        width=WIDTH, height=height, lines=(_line(0, signal.title, signal.points, x, y),),
        rules=tuple(_rule(y, value, "base", "baseline") for value in known), moments=(),
        ticks=tuple(Tick(round(y.at(v), 1), _decimal(v, step)) for v in y.multiples(step)),
        below=tuple(instant(round(value))[11:] for value in x.spread(2)),
    )  # fmt: skip


def _rule(y: _Scale, value: float, text: str, kind: str) -> Rule:
    return Rule(round(y.at(value), 1), text, kind)


def _power(exponent: float) -> str:
    return f"×{10**exponent:,g}" if abs(exponent) < 4 else f"×1e{exponent:.0f}"


def _decimal(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step)))
    return f"{value:,.{digits}f}" if digits < 5 else f"{value:.1e}"


def _line(k: int, name: str, points: Points, x: _Scale, y: _Scale) -> Line:
    placed = [f"{round(x.at(at), 1):g} {round(y.at(value), 1):g}" for at, value in points]
    dots = "".join(f"M{place}h0" for place in (placed if len(placed) <= _MARKED else placed[-1:]))
    return Line(name, "M" + "L".join(placed) if len(placed) > 1 else "", dots, k)


class _Scale:
    """Linear from the span of the values, at least `least` wide, to the span [start, end]."""

    def __init__(self, values: Iterable[float], start: float, end: float, least: float = 0.0) -> None:
        held = list(values)
        self.low, self.high = min(held), max(held)
        if self.high - self.low <= least:
            middle, half = (self.low + self.high) / 2, least or abs(self.high) * 0.1 or 0.01
            lowest = 0.0 if self.low >= 0 else -math.inf
            self.low, self.high = max(middle - half, lowest), middle + half
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def spread(self, count: int) -> list[float]:
        """The middles of so many equal parts."""
        return [self.low + (self.high - self.low) * (k + 0.5) / count for k in range(count)]

    def nice_step(self, count: int, *, whole: bool) -> float:
        """1, 2 or 5 times a power of ten, so that about `count` fit; with `whole` a whole number."""
        rough = (self.high - self.low) / count
        if whole and rough <= 1:
            return 1.0
        power: float = 10.0 ** math.floor(math.log10(rough))
        return next(power * k for k in (1, 2, 5, 10) if power * k >= rough)

    def multiples(self, step: float) -> list[float]:
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [k * step for k in range(first, min(last, first + 20) + 1)]


@dataclass(frozen=True)
class Whiskers:
    """A rate with its interval on a shared axis: x positions, 0…`width`."""

    low: float
    high: float
    at: float


WHISKER_WIDTH = 140


def whiskers(rate: Rate, top: float) -> Whiskers:
    """`top` is the largest value of the axis."""
    scale = WHISKER_WIDTH / top if top > 0 else 0.0
    low, high = (rate.rate, rate.rate) if rate.low is None or rate.high is None else (rate.low, rate.high)
    return Whiskers(*(round(min(max(value * scale, 0.0), WHISKER_WIDTH), 1) for value in (low, high, rate.rate)))


def axis_top(rates: Iterable[Rate]) -> float:
    """Where the shared axis of some rates ends: at the largest upper bound, at most 1."""
    return min(1.0, max((rate.high if rate.high is not None else rate.rate for rate in rates), default=1.0) * 1.02)
