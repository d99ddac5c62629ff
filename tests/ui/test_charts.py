from __future__ import annotations

import re

import pytest

from stream_interp.ui.views.incident import Rate
from stream_interp.ui.views.lane import Signal
from stream_interp.ui.views.paths import Path
from stream_interp.ui.web.charts import axis_top, evidence_chart, health_chart, whiskers

NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")


def signal(*points: tuple[int, float], baseline: float | None = 1.0) -> Signal:
    return Signal(name="l0", title="L0", now=1.0, baseline=baseline, points=list(points))


def test_a_line_lies_inside_and_falls_where_values_rise() -> None:
    chart = health_chart(signal((0, 1.0), (60_000, 2.0), (120_000, 3.0), baseline=2.0))
    assert chart is not None
    xs_ys = list(map(float, NUMBERS.findall(chart.lines[0].d)))
    xs, ys = xs_ys[::2], xs_ys[1::2]
    assert xs == [0, chart.width / 2, chart.width]
    assert ys == sorted(ys, reverse=True)
    assert all(0 <= y <= chart.height for y in ys)
    assert chart.rules[0].y == pytest.approx(ys[1])


@pytest.mark.parametrize("values", [(0.0, 0.0), (5.0, 5.0), (-1.0, -1.0), (1e-9, 1e-9), (1e12, 1e12)])
def test_constant_values_are_no_trouble(values: tuple[float, float]) -> None:
    chart = health_chart(signal((7, values[0]), (7, values[1]), baseline=None))
    assert chart is not None
    assert 1 <= len(chart.ticks) <= 21
    assert len(set(chart.below)) == 2  # moments two seconds around, not a year


def test_the_threshold_stays_visible_whatever_the_evidence() -> None:
    chart = evidence_chart([Path(name="f", points=[(1, -300.0), (2, 250.0)])], change=1, opened=2)
    assert chart is not None
    alarm, critical = chart.rules
    assert alarm.y - critical.y > 20
    assert [m.kind for m in chart.moments] == ["opened", "change"]
    assert evidence_chart([], change=None, opened=0) is None


def test_ticks_are_round_numbers() -> None:
    chart = health_chart(signal((0, 0.7612), (9, 0.8241), baseline=0.823))
    assert chart is not None
    assert [tick.text for tick in chart.ticks] == ["0.78", "0.80", "0.82"]


def test_whiskers_never_leave_their_axis() -> None:
    rates = [Rate(rate=0.4, requests=240, low=0.3, high=0.5), Rate(rate=2.0, requests=0, low=None, high=None)]
    top = axis_top(rates)
    assert top == 1.0
    assert all(0 <= x <= 140 for rate in rates for x in (whiskers(rate, top).low, whiskers(rate, top).high))
