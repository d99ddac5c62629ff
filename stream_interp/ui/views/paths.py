"""Evidence over time: each test's e-SR statistic against the threshold at which it alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, structs

from stream_interp.evidence.path import Point
from stream_interp.records.alert import Alert
from stream_interp.ui.views.lane import Signal

MAX_SERIES = 6
MAX_POINTS = 256  # of one series; windows between them are left out
FLOOR_LOG10 = -6.0  # a statistic so far below its threshold, or 0, is drawn here
CRITICAL_LOG10 = math.log10(20.0)  # one test at 20 times its threshold is critical

Source = Literal["transitions", "replay"]


class Path(Struct, frozen=True, kw_only=True):
    """One test. `points` are (request of the lane, log10 of statistic over threshold): it alarms at 0."""

    name: str
    points: list[tuple[int, float]]


class Paths(Struct, frozen=True, kw_only=True):
    """The strongest tests. `source`: exact per window by a replay, or only where a transition was told."""

    source: Source
    why: str  # why not by a replay; empty where it is
    series: list[Path]


def paths_of_transitions(transitions: Sequence[Alert]) -> Paths:
    """The first version: what each transition said of the tests it listed."""
    points: dict[str, dict[int, float]] = {}
    for alert in transitions:
        for name, log_e, log_threshold in _statistics(alert):
            points.setdefault(name, {})[alert.request] = (log_e - log_threshold) / math.log(10)
    series = [Path(name=name, points=sorted(held.items())) for name, held in points.items()]
    series.sort(key=lambda path: -max(value for _, value in path.points))
    return Paths(source="transitions", why="", series=series[:MAX_SERIES])


def paths_of_replay(points: Sequence[Point]) -> Paths:
    """Exact: the statistics after every window, thinned to MAX_POINTS."""
    kept = _thinned(points)
    names = dict.fromkeys(name for point in points for name in point.log_e)
    series = [Path(name=name, points=_relative(kept, name)) for name in names]
    series.sort(key=lambda path: -max((value for _, value in path.points), default=FLOOR_LOG10))
    return Paths(source="replay", why="", series=[path for path in series if path.points][:MAX_SERIES])


def health_of_replay(signals: Sequence[Signal], points: Sequence[Point]) -> list[Signal]:
    """The signals as the incident had them: its curve, its end, and the baseline that judged it then."""
    kept = _thinned(points)
    return [
        structs.replace(
            s, points=_health(kept, s.name), now=_newest(points, s.name), baseline=_newest(points, f"{s.name}_baseline")
        )
        for s in signals
    ]  # fmt: skip


def _thinned(points: Sequence[Point]) -> list[Point]:
    stride = -(-len(points) // MAX_POINTS)
    kept = list(points[:: max(1, stride)])
    return kept if not points or kept[-1] is points[-1] else [*kept, points[-1]]


def _relative(points: Sequence[Point], name: str) -> list[tuple[int, float]]:
    """log10 of statistic over threshold wherever the series is armed."""
    drawn = []
    for point in points:
        log_a, log_e = point.log_threshold.get(name), point.log_e.get(name)
        if log_a is not None:
            value = FLOOR_LOG10 if log_e is None else max(FLOOR_LOG10, (log_e - log_a) / math.log(10))
            drawn.append((point.request, value))
    return drawn


def _health(points: Sequence[Point], name: str) -> list[tuple[int, float]]:
    values = ((point.closed_at_ms, getattr(point.health, name)) for point in points)
    return [(at_ms, value) for at_ms, value in values if value is not None]


def _newest(points: Sequence[Point], name: str) -> float | None:
    values = (getattr(point.health, name) for point in reversed(points))
    return next((value for value in values if value is not None), None)


def _statistics(alert: Alert) -> list[tuple[str, float, float]]:
    features = [(f"feature {f.feature} {f.direction}", f.log_e, f.log_threshold) for f in alert.features]
    return features + [(f"{s.score} {s.direction}", s.log_e, s.log_threshold) for s in alert.scores]
