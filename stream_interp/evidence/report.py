"""The one-page report of a pack: HTML without scripts, for people and for printers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from stream_interp.drift.intervals import clopper_pearson
from stream_interp.evidence.chart import Chart, chart
from stream_interp.evidence.pack import Card
from stream_interp.evidence.path import Point
from stream_interp.evidence.replay import Difference
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert, FeatureDrift
from stream_interp.records.envelope import rfc3339
from stream_interp.records.text import inert
from stream_interp.records.window import SCORE_TITLES

LIMIT = 120  # characters of a name or reason
TEXT_LIMIT = 400  # of what was found of a cause
_INTERVAL_ALPHA = 0.025  # a side

CAUSES = {
    "pipeline": "one part of the way to the detector is at fault: some input partitions alone, or records are lost",
    "model_change": "the model's activations come in another form than before",
    "data_shift": "the data or the model's activations changed: tests of whole requests or of features moved",
    "sae_health": "the SAE no longer explains the activations: feature names must not be trusted",
    "traffic_mix": "the mix of requests changed: their lengths, where in their context they begin, or their segments",
}
HEALTH = (("explained_variance", "explained variance"), ("l0", "features a token (L0)"), ("norm", "mean norm"))


class Event(NamedTuple):
    """What was told, or what somebody said or asked; `event_id` of transitions only."""

    at_ms: int
    what: str
    author: str
    event_id: str
    reason: str


class Row(NamedTuple):
    """A feature's part, strongest evidence first."""

    feature: int
    label: str
    direction: str
    before: str
    now: str
    interval: str
    ratio: str
    evidence: str


def render(story: Story, card: Card, path: Sequence[Point], differences: Sequence[Difference]) -> str:
    """The report.

    Args:
        path: of the replay.
        differences: between recorded transitions and replay.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_inert, trim_blocks=True)
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    strongest = strongest_of(story.transitions)
    return template.render(
        story=story, card=card, last=story.transitions[-1] if story.transitions else None, strongest=strongest,
        rows=[_row(f) for f in strongest.features] if strongest else [], cause=CAUSES, when=_when, log10=_log10,
        evidence_chart=_evidence_chart(path, story.transitions), health_charts=_health_charts(path),
        coverage=_coverage(story), events=_events(story), differences=differences, windows=len(path),
        score_titles=SCORE_TITLES, sentence=_sentence,
    )  # fmt: skip


def strongest_of(transitions: Sequence[Alert]) -> Alert | None:
    """The last transition of an incident while it was open: it lists what moved. None where there is none."""
    open_ones = [alert for alert in transitions if alert.transition != "resolved"]
    return open_ones[-1] if open_ones else None


def _row(f: FeatureDrift) -> Row:
    ratio = f.rate_now / f.rate_baseline if f.rate_baseline else math.inf
    low = high = None
    if f.requests_now:
        fired = np.array([round(f.rate_now * f.requests_now)])
        lower, upper = clopper_pearson(fired, f.requests_now, _INTERVAL_ALPHA)
        low, high = float(lower[0]), float(upper[0])
    return Row(
        f.feature, f.label, f.direction, f"{f.rate_baseline:.2%}", f"{f.rate_now:.2%}",
        "–" if low is None or high is None else f"{low:.2%} to {high:.2%}",
        "new" if math.isinf(ratio) else f"×{ratio:.2f}", f"{_log10(f.log_e - f.log_threshold)}",
    )  # fmt: skip


def _evidence_chart(path: Sequence[Point], transitions: Sequence[Alert]) -> Chart:
    """Each statistic over its threshold, log10, so that all of them alarm at 0."""
    names = path[-1].log_e if path else {}
    series = {name: [_over_threshold(point, name) for point in path] for name in names}
    marks = [(alert.position.offset, alert.transition) for alert in transitions]
    offsets = [point.offset for point in path]
    at = [(max(0, sum(o <= offset for o in offsets) - 1), name) for offset, name in marks]
    return chart("e-value over its threshold (log10)", series, level=0.0, marks=at, floor=-6.0)


def _over_threshold(point: Point, name: str) -> float | None:
    e, a = point.log_e.get(name), point.log_threshold.get(name)
    return None if e is None or a is None else (e - a) / math.log(10)


def _health_charts(path: Sequence[Point]) -> list[Chart]:
    found = []
    for name, title in HEALTH:
        values = [getattr(point.health, name) for point in path]
        if any(value is not None for value in values):
            level = getattr(path[-1].health, f"{name}_baseline")
            found.append(chart(title, {"now": values}, level=level))
    return found


def _events(story: Story) -> list[Event]:
    """In order of time, as each has it: people's clocks are not DETECT's."""
    told = [Event(t.at_ms, f"{t.transition}, {t.severity}", "detect", t.event_id, t.note) for t in story.transitions]
    said = [Event(a.at_ms, a.kind, a.author, "", a.reason) for a in story.annotations]
    asked = [
        Event(o.manifest.version, f"{o.manifest.kind} asked", o.manifest.author, "", o.manifest.reason)
        for o in story.orders
        if o.manifest.kind in ("resolve", "relearn", "approve")
    ]
    return sorted((*told, *said, *asked), key=lambda event: event.at_ms)


def _coverage(story: Story) -> dict[str, int]:
    """Records in the cuts that hold the windows: counted, and not counted by reason."""
    total = {"records": 0, "counted": 0}
    for cut in story.cuts:
        total["records"] += cut.records
        total["counted"] += cut.counted_records
        for reason, count in cut.not_counted.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _when(epoch_ms: int) -> str:
    """A time that others wrote, even where no calendar holds it."""
    try:
        return rfc3339(epoch_ms)
    except (OverflowError, OSError, ValueError):
        return f"{epoch_ms} ms"


def _log10(value: float) -> str:
    return f"{value / math.log(10):.1f}"


def _sentence(text: str) -> Markup:
    """A longer text, inert; nothing of it is HTML."""
    return escape(inert(text, TEXT_LIMIT))


def _inert(value: object) -> object:
    """On one line, cut, obeyed by nobody; escaping comes after it."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = inert(value)
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}… ({len(text):,} characters)"
