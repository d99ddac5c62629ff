"""The way of an incident window by window: exact e-value paths and health curves, from a replay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from stream_interp.detect.armed.features import Kind
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.crossings import Of
from stream_interp.detect.state import LaneState
from stream_interp.detect.view import health_of
from stream_interp.drift import esr, exceedance
from stream_interp.evidence.replay import Replayed, replay
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert
from stream_interp.records.status import Health
from stream_interp.records.window import UNIT

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
    """Which statistics to follow: rows of SCORE_TESTS by stratum, and features by their tests."""

    scores: tuple[tuple[str, int], ...]
    features: tuple[tuple[Of, int], ...]


def series_of(alerts: Iterable[Alert], top: int = TOP_FEATURES) -> Series:
    """All scores that an incident's transitions list, and its features with the largest evidence."""
    scores, features = set[tuple[str, int]](), dict[tuple[Of, int], float]()
    for alert in alerts:
        for score in alert.scores:
            named = (score.score, score.direction)
            scores |= {(score.stratum, k) for k, t in enumerate(SCORE_TESTS) if (t.score, t.direction) == named}
        for drift in alert.features:
            kind = Kind(drift.measure, "down" if drift.direction == "down" else "up")
            key = Of(drift.stratum, str(kind)), drift.feature
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
    log_e, log_a = dict[str, float | None](), dict[str, float | None]()
    for stratum, k in series.scores:  # the baseline before may have been counted without this stratum, or this score
        known = stratum in tests.strata and k < len(tests.strata[stratum].scores.column)
        name = _score_name(stratum, k)
        log_e[name] = log_a[name] = None
        if known:
            value = exceedance.value(tests.strata[stratum].scores, evidence.strata[stratum].scores.m)
            log_e[name], log_a[name] = _log(value[k]), _log(tests.score_thresholds(stratum)[k])
    for of, feature in series.features:  # another baseline may have been made with another SAE
        own = tests.strata[of.stratum].features.get(of.kind) if of.stratum in tests.strata else None
        name = _feature_name(of, feature)
        log_e[name] = log_a[name] = None
        if own is not None and feature < len(own.p):
            m = evidence.strata[of.stratum].features[of.kind].m
            log_e[name] = _log(float(esr.value(m[:, [feature]])[0]))
            log_a[name] = _log(tests.a_weeks(own.kind.group)) if own.armed[feature] else None
    return Point(
        offset=state.position.offset, closed_at_ms=state.closed_at_ms, request=state.requests,
        open=state.incident is not None, log_e=log_e, log_threshold=log_a, health=health_of(state),
    )  # fmt: skip


def _score_name(stratum: str, k: int) -> str:
    name = f"{SCORE_TESTS[k].score} {SCORE_TESTS[k].direction}"
    return name if stratum == UNIT else f"{name} ({stratum})"


def _feature_name(of: Of, feature: int) -> str:
    name = f"feature {feature} {of.kind.removeprefix('rate ')}"
    return name if of.stratum == UNIT else f"{name} ({of.stratum})"


def _log(value: float) -> float | None:
    return float(np.log(value)) if 0 < value < np.inf else None
