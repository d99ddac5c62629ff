"""The way of an incident window by window: exact e-value paths and health curves, from a replay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec import Struct

from stream_interp.detect.armed import SCORE_TESTS, score_thresholds
from stream_interp.detect.state import LaneState
from stream_interp.detect.view import health_of
from stream_interp.drift import esr, exceedance
from stream_interp.evidence.replay import Replayed, replay
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert
from stream_interp.records.status import Health

TOP_FEATURES = 10


class Point(Struct, frozen=True, kw_only=True):
    """A lane after one window.

    Attributes:
        offset: position on the windows partition.
        closed_at_ms: of the window.
        request: requests of the lane since it was armed.
        open: an incident is open.
        log_e: natural log of the e-SR statistics in weeks, after the window's last request, by series: `l0 up`,
            `feature 17 down`. None where the statistic is 0.
        log_threshold: log of A of the same series; None where it is not armed.
        health: recent windows, as the status has it.
    """

    offset: int
    closed_at_ms: int
    request: int
    open: bool
    log_e: dict[str, float | None]
    log_threshold: dict[str, float | None]
    health: Health


@dataclass(frozen=True)
class Series:
    """Which statistics to follow: rows of SCORE_TESTS, and features with their direction."""

    scores: tuple[int, ...]
    features: tuple[tuple[int, Literal["up", "down"]], ...]


def series_of(alerts: Iterable[Alert], top: int = TOP_FEATURES) -> Series:
    """All scores that an incident's transitions list, and its features with the largest evidence."""
    scores, features = set[int](), dict[tuple[int, Literal["up", "down"]], float]()
    for alert in alerts:
        named = {(score.score, score.direction) for score in alert.scores}
        scores |= {k for k, test in enumerate(SCORE_TESTS) if (test.score, test.direction) in named}
        for drift in alert.features:
            key: tuple[int, Literal["up", "down"]] = (drift.feature, "down" if drift.direction == "down" else "up")
            features[key] = max(drift.log_e, features.get(key, -np.inf))
    strongest = sorted(features, key=lambda key: (-features[key], key))[:top]
    return Series(tuple(sorted(scores)), tuple(strongest))


def incident_path(story: Story) -> list[Point]:
    """One point for every window of an armed lane, by replaying the story from its checkpoint.

    Raises:
        IntegrityError: the checkpoint cannot be read.
    """
    return list(points(replay(story), series_of(story.transitions)))


def points(steps: Iterable[Replayed], series: Series) -> Iterator[Point]:
    """The points of a replay that is going on."""
    for step in steps:
        if step.told.windows and step.state.tests is not None:
            yield _point(step.state, series)


def _point(state: LaneState, series: Series) -> Point:
    assert state.tests is not None
    assert state.evidence is not None
    tests, evidence = state.tests, state.evidence
    of_scores, a_scores = exceedance.value(tests.scores, evidence.scores), score_thresholds(tests)
    log_e, log_a = dict[str, float | None](), dict[str, float | None]()
    for k in series.scores:
        known = k < len(of_scores)  # the baseline before may have been counted without this score
        log_e[_score_name(k)] = _log(of_scores[k]) if known else None
        log_a[_score_name(k)] = _log(a_scores[k]) if known else None
    for feature, direction in series.features:
        m = evidence.rates[direction].m
        known = feature < m.shape[1]  # another baseline may have been made with another SAE
        armed = known and bool(tests.rates[direction].armed[feature])
        name = f"feature {feature} {direction}"
        log_e[name] = _log(float(esr.value(m[:, [feature]])[0])) if known else None
        log_a[name] = _log(tests.thresholds.get("features", np.inf)) if armed else None
    return Point(
        offset=state.position.offset, closed_at_ms=state.closed_at_ms, request=state.requests,
        open=state.incident is not None, log_e=log_e, log_threshold=log_a, health=health_of(state),
    )  # fmt: skip


def _score_name(k: int) -> str:
    return f"{SCORE_TESTS[k].score} {SCORE_TESTS[k].direction}"


def _log(value: float) -> float | None:
    return float(np.log(value)) if 0 < value < np.inf else None
