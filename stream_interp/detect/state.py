"""The state of one lane: all that `step` knows, and all that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stream_interp.detect.anchor import Anchor
from stream_interp.detect.armed import Evidence, Tests
from stream_interp.detect.armed.canary import Canary
from stream_interp.detect.armed.traffic import TrafficNote
from stream_interp.detect.health import HealthSums
from stream_interp.detect.incident import Incident
from stream_interp.detect.learning import Learned
from stream_interp.drift.second_opinions import Opinion
from stream_interp.records.alert import Alert, BaselineCreep, Position
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, ProjectorHeader
from stream_interp.records.lane import Lane
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.records.window import FLOAT32, SCORES
from stream_interp.settings import DriftSettings, UnitSettings

RECENT_REQUESTS = 64  # whose scores are kept for "now"
LOST = ("incomplete", "late", "duplicate")  # reasons for which a record does not count though nobody wanted that

# Per feature. Of rates both directions' evidence (8 components, CUSUM, two counts) and constants (bound, CUSUM's step,
# cluster), the baseline's count and the detectable ratio; of magnitudes four tests of 4 components, a count and a
# bound, and the baseline's sum. `tests/detect/test_bounds.py` counts the arrays of an armed lane.
RATE_BYTES = 2 * (8 * 8 + 8 + 4 + 4) + 2 * (4 + 4 + 1) + 8 + 4
MAGNITUDE_BYTES = 4 * (4 * 8 + 4 + 4) + 8
ANCHOR_BYTES = 8  # once it is not the baseline in effect


class DetectSettings(Struct, frozen=True, kw_only=True):
    """The settings that decisions are a function of; they travel in the state and in markers."""

    drift: DriftSettings = DriftSettings()
    baseline_requests: int = 10_000
    unit: UnitSettings = UnitSettings()


Phase = Literal["fit", "calibrate", "armed", "refused"]


@dataclass(frozen=True)
class Baseline:
    """The frozen reference a lane is judged by."""

    header: BaselineHeader
    arrays: Arrays


def no_scores() -> NDArray[np.float32]:
    """Scores of no requests, [0, len(SCORES)]."""
    return np.zeros((0, len(SCORES)), np.float32)


@dataclass(frozen=True, kw_only=True)
class LaneState:
    """A lane after some position of its windows partition.

    Attributes:
        requests: counted since the lane was armed, or in the learning phase it is in.
        counted, seen: requests that fed tests or baseline, and all; `reasons` has the difference.
        uncounted_since_ms: `closed_at` of the first of the latest windows of which none counted; 0: the last one did.
        deaf: so for longer than a projector travels.
        unencoded_ms: `closed_at` of the latest window of this projector with requests that are not encoded in the
            projector's compute_dtype; 0: none yet.
        unencoded: there was one lately.
        created_ms: `closed_at` of the first window; orders the revisions of a site.
        weeks: time spent armed, on the drift clock: what the budget is spent against.
        fast_clock_ms: append time of the latest window whose `closed_at` was too far ahead of the log, or behind it and
            the lane; 0 = none yet.
        fault: why a record that the lane depends on could not be used; empty where all could.
        relearned: version of the latest order to learn again; baselines before it no longer count.
        stories: last alert of everything that is open, by its incident_id: the incident, blindness, faults.
        since_request, since_offset: `requests`, and position, at which the evidence began; of a checkpoint of before
            there were such fields, that of the arming. The post-alarm job must not look further back.
        recent_scores: [≤ RECENT_REQUESTS, len(SCORES)]; of a checkpoint of before a score narrower, until a window.
        traffic_note: lengths, positions or segments of requests are not those of the baseline.
        canary: the self-test; where it is deaf, so may the lane be.
        acts_dtypes: in which activations came, and the lane's request by which each first had; 0: before it was armed.
        anchor: what baselines are compared with; None while that is the one in effect, or there has been none.
        creep: how the latest baseline differs from the anchor.
        tests: follows from baseline and settings; a checkpoint leaves it out.
    """

    lane: Lane
    settings: DetectSettings
    position: Position
    phase: Phase = "fit"
    learned: Learned | None = None
    projector: ProjectorHeader | None = None
    baseline: Baseline | None = None
    tests: Tests | None = field(default=None, metadata={"derived": True})
    evidence: Evidence | None = None
    incident: Incident | None = None
    incidents: int = 0
    requests: int = 0
    weeks: float = 0.0
    counted: int = 0
    uncounted_since_ms: int = 0
    deaf: bool = False
    unencoded_ms: int = 0
    unencoded: bool = False
    seen: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    closed_at_ms: int = 0
    created_ms: int = 0
    clock_fault: bool = False
    fast_clock_ms: int = 0
    fault: str = ""
    blind: bool = False
    relearned: int = 0
    stories: dict[str, Alert] = field(default_factory=dict)
    health_now: HealthSums | None = None
    opinions: dict[str, Opinion] = field(default_factory=dict)
    since_request: int = 0
    since_offset: int = -1
    recent_scores: NDArray[np.float32] = field(default_factory=no_scores)
    traffic_note: TrafficNote | None = None
    canary: Canary = field(default_factory=Canary)
    anchor: Anchor | None = None
    creep: BaselineCreep | None = None
    acts_dtypes: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Records that did not count though nobody wanted that, of `seen`."""
        return sum(self.reasons.get(reason, 0) for reason in LOST)

    @property
    def compute_dtype(self) -> str:
        """What the lane's windows are to be encoded in."""
        return FLOAT32 if self.phase == "fit" or self.projector is None else self.projector.compute_dtype

    def describe(self) -> dict[str, Any]:
        """What to say of a lane in a log line."""
        return {"lane_id": self.lane.lane_id, "phase": self.phase, "requests": self.requests}


def armed_bytes(d_sae: int, baseline_requests: int, strata: Sequence[int]) -> int:
    """What an armed lane holds, in bytes, with strata that have so many requests in the baseline beside its unit."""
    scores = (baseline_requests + sum(strata)) * len(SCORES) * 4
    return d_sae * (RATE_BYTES + MAGNITUDE_BYTES) * (1 + len(strata)) + scores


def learning_bytes(d_in: int, d_sae: int, baseline_requests: int, strata: int) -> int:
    """What a learning lane holds: the scatter [r, r], per feature a maximum and design effects, and a growing baseline.

    Of so many strata none learns from more requests than the unit.
    """
    scores = baseline_requests * (1 + strata) * len(SCORES) * 4
    return 8 * min(d_in, MOMENT_COORDINATES) ** 2 + d_sae * (4 + 2 * 16 + 16 * (1 + strata)) + scores
