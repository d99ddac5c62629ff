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
class Chart:
    """All of a chart; y grows downwards. `times` are written under it, evenly spread."""

    width: int
    height: int
    lines: tuple[Line, ...]
    rules: tuple[Rule, ...]
    ticks: tuple[Tick, ...]
    times: tuple[str, ...]


Series = Sequence[tuple[str, Sequence[tuple[int, float]]]]


def evidence_chart(paths: Sequence[Path], height: int = 220) -> Chart | None:
    """log10 of statistic over threshold, over time; alarms at 0. None without a point."""
    rules = [(0.0, "alarm", "threshold"), (CRITICAL_LOG10, "critical", "critical")]
    return _chart([(path.name, path.points) for path in paths], rules, height, _X_TICKS, power=True)


def health_chart(signal: Signal, height: int = 110) -> Chart | None:
    """One health signal over time beside its baseline. None without a point."""
    rules = [] if signal.baseline is None else [(signal.baseline, "base", "baseline")]
    return _chart([(signal.title, signal.points)], rules, height, 2)


def _chart(
    series: Series, rules: Sequence[tuple[float, str, str]], height: int, x_ticks: int, *, power: bool = False
) -> Chart | None:
    points = [point for _, held in series for point in held]
    if not points:
        return None
    x = _Scale([at for at, _ in points], 0, WIDTH, least=60_000.0)
    y = _Scale([*(value for _, value in points), *(value for value, _, _ in rules)], height - 6, 8)
    step = y.nice_step(_Y_TICKS, whole=power)
    return Chart(
        width=WIDTH, height=height, lines=tuple(_line(k, name, held, x, y) for k, (name, held) in enumerate(series)),
        rules=tuple(Rule(round(y.at(value), 1), text, kind) for value, text, kind in rules),
        ticks=tuple(Tick(round(y.at(v), 1), _power(v) if power else _decimal(v, step)) for v in y.multiples(step)),
        times=tuple(instant(round(x.low + (x.high - x.low) * (k + 0.5) / x_ticks))[11:] for k in range(x_ticks)),
    )  # fmt: skip


def _power(exponent: float) -> str:
    return f"×{10**exponent:,g}" if abs(exponent) < 4 else f"×1e{exponent:.0f}"


def _decimal(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step)))
    return f"{value:,.{digits}f}" if digits < 5 else f"{value:.1e}"


def _line(k: int, name: str, points: Sequence[tuple[int, float]], x: _Scale, y: _Scale) -> Line:
    placed = [f"{round(x.at(at), 1):g} {round(y.at(value), 1):g}" for at, value in points]
    dots = "".join(f"M{place}h0" for place in (placed if len(placed) <= _MARKED else placed[-1:]))
    return Line(name, "M" + "L".join(placed) if len(placed) > 1 else "", dots, k)


class _Scale:
    """Linear from the span of the values, at least `least` wide, to the span [start, end]."""

    def __init__(self, values: Iterable[float], start: float, end: float, least: float = 0.0) -> None:
        held = list(values)
        self.low, self.high = min(held), max(held)
        if self.high - self.low <= least:
            middle, half = (self.low + self.high) / 2, max(least, abs(self.high) * 0.1, 1e-9) / 2
            self.low, self.high = middle - half, middle + half
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

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
