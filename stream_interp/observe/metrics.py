"""Boards as Prometheus metrics. All the work is done when they are scraped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from stream_interp.observe.board import Board, Distribution, Reading
from stream_interp.observe.catalogue import METRICS, Metric
from stream_interp.observe.lanes import lane_readings
from stream_interp.records.text import inert

PREFIX = "stream_interp_"
MAX_LABEL_CHARS = 128

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def registry_of(boards: Sequence[Board]) -> CollectorRegistry:
    """A registry of these processes, and of the operating-system process they run in (memory, CPU, files)."""
    registry = CollectorRegistry()
    registry.register(_BoardCollector(boards))
    ProcessCollector(registry=registry)
    return registry


class _BoardCollector(Collector):
    def __init__(self, boards: Sequence[Board]) -> None:
        self._boards = tuple(boards)

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        taken: set[tuple[str, ...]] = set()
        for board in self._boards:
            for reading in board_readings(board, time.monotonic()):
                labels = _labels(board.process, reading)
                if (series := (reading.metric, *labels)) not in taken:  # two names may be one once they are cut
                    taken.add(series)
                    _add(families, reading, labels)
        yield from families.values()


def board_readings(board: Board, now_s: float) -> Iterable[Reading]:
    """Everything that is known of one process at monotonic `now_s`."""
    shown = board.snapshot
    yield Reading("build_info", 1, (version("stream-interp"),))
    yield Reading("process_up", board.is_live(now_s))
    yield Reading("process_ready", not shown.missing)
    yield Reading("process_loop_age_seconds", board.silent_for_s(now_s))
    yield from shown.readings
    if board.process == "detect":
        yield from lane_readings(shown.statuses)


def _labels(process: str, reading: Reading) -> list[str]:
    own = [] if METRICS[reading.metric].of_lane else [process]
    return own + [inert(label, MAX_LABEL_CHARS) for label in reading.labels]


def _add(families: dict[str, Family], reading: Reading, labels: list[str]) -> None:
    family = families.get(reading.metric)
    if family is None:
        family = families[reading.metric] = _family(reading.metric, METRICS[reading.metric])
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(reading.value, Distribution)
        family.add_metric(labels, *_cumulative(reading.value))
    else:
        assert not isinstance(reading.value, Distribution)
        family.add_metric(labels, float(reading.value))


def _cumulative(counted: Distribution) -> tuple[list[tuple[str, float]], float]:
    reached = accumulate(counted.counts)
    return list(zip([*map(str, counted.bounds), "+Inf"], reached, strict=True)), counted.total


def _family(name: str, metric: Metric) -> Family:
    labels = metric.labels if metric.of_lane else ("process", *metric.labels)
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    made: Family = kinds[metric.kind](PREFIX + name, metric.help, labels=labels)
    return made
