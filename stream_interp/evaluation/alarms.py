"""The alarms of a lane's armed tests on a sequence of requests: the same updates and crossings as `detect.step`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from stream_interp.detect import armed
from stream_interp.detect.armed import Evidence, Tests
from stream_interp.detect.crossings import crossings
from stream_interp.evaluation.requests import Requests
from stream_interp.records.alert import Group
from stream_interp.records.arrays import Arrays
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef, LaneSums, Window, WindowHeader


@dataclass(frozen=True)
class Detector:
    """What judges.

    Attributes:
        tests: armed, of the lane's baseline.
        requests_per_week: what a request's time is.
        window: requests a tick of the feature tests; score tests have one tick a request whatever it is.
    """

    tests: Tests
    requests_per_week: float
    window: int


@dataclass(frozen=True)
class Alarm:
    """An incident that opens, at the end of the window that shows it.

    Attributes:
        request: of the sequence, from 1.
        groups: with a crossing in that window.
    """

    request: int
    groups: frozenset[Group]


def alarms(detector: Detector, requests: Requests) -> Iterator[Alarm]:
    """All of them. After each the evidence starts anew, as if the incident were resolved at once.

    An incident that stayed open would hide those after it; so counted, M + A·alarms − Σw is a supermartingale and the
    budget bounds their expected number (design §4).
    """
    evidence = armed.no_evidence(detector.tests)
    for start in range(0, len(requests), detector.window):
        window = _window(requests, start, min(start + detector.window, len(requests)))
        evidence, groups = _tick(detector, evidence, window)
        if groups:
            evidence = armed.no_evidence(detector.tests)
            yield Alarm(start + window.header.requests, groups)


def _tick(detector: Detector, evidence: Evidence, window: Window) -> tuple[Evidence, frozenset[Group]]:
    tests, weeks = detector.tests, window.header.requests / detector.requests_per_week
    tick = armed.update(tests, evidence, window, weeks, at_ms=None)
    return tick.evidence, crossings(tests, tick).groups


_HEADER = WindowHeader(
    lane=Lane(model_id="evaluation", hook_name="file"), cut=CutRef(topic="file", partition=0, a=0, b=1), requests=0,
    tokens=0, closed_at_ms=0, acts_dtype="float32", projector_version=1, unit_tokens=0, tier="T2", d_in=0, d_sae=0,
    sums=LaneSums(),
)  # fmt: skip


def _window(requests: Requests, start: int, stop: int) -> Window:
    """With what the tests read of a window, and nothing else."""
    own = slice(requests.bounds[start], requests.bounds[stop])
    ids, at, counts = np.unique(requests.feature[own], return_inverse=True, return_counts=True)
    arrays: Arrays = {
        "feature_ids": ids, "requests_fired": counts, "mag_sum": np.bincount(at, requests.magnitude[own], len(ids)),
        "request_scores": requests.scores[start:stop],
    }  # fmt: skip
    return Window(structs.replace(_HEADER, requests=stop - start), arrays)
