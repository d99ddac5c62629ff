"""A lane gets a baseline, its first or another: its tests are armed, and it is compared with the anchor. Pure."""

from __future__ import annotations

from dataclasses import replace

from stream_interp.detect import anchor, armed, learning
from stream_interp.detect.alerts import BASELINE_CREEP, lane_alert
from stream_interp.detect.anchor import Anchor
from stream_interp.detect.armed.canary import Canary
from stream_interp.detect.state import Baseline, LaneState, no_scores
from stream_interp.records.alert import Alert, BaselineCreep


def rebaselined(state: LaneState, baseline: Baseline, at_ms: int) -> tuple[LaneState, tuple[Alert, ...]]:
    """The lane as it is judged by this baseline from here on, and what there is to say of creep.

    Raises:
        IntegrityError: the baseline has another number of features than the anchor.
    """
    after = arm(state, baseline)
    found = None
    if after.anchor is not None:
        found = anchor.crept(after.anchor, baseline.header, baseline.arrays, after.settings.drift.tolerance)
    return with_creep(after, found, at_ms)


def arm(state: LaneState, baseline: Baseline) -> LaneState:
    """The lane is judged by this baseline from here on."""
    tests = armed.build(baseline.header, baseline.arrays, state.settings.drift)
    projector = state.projector
    if projector is None or projector.version != baseline.header.projector_version:
        projector = learning.projector_of(baseline.header)
    return replace(
        state, phase="armed", learned=None, projector=projector, baseline=baseline, tests=tests,
        evidence=armed.no_evidence(tests), incident=None, requests=0, weeks=0.0, health_now=None,
        recent_scores=no_scores(), uncounted_since_ms=0, traffic_note=None, canary=Canary(),
        since_request=0, since_offset=state.position.offset, acts_dtypes=dict.fromkeys(state.acts_dtypes, 0),
        anchor=anchor_beside(state),
    )  # fmt: skip


def anchor_beside(state: LaneState) -> Anchor | None:
    """What the lane's next baseline is compared with; None where it will be the lane's first."""
    if state.anchor is not None or state.baseline is None:
        return state.anchor
    return anchor.kept(state.baseline.header, state.baseline.arrays)


def with_creep(state: LaneState, found: BaselineCreep | None, at_ms: int) -> tuple[LaneState, tuple[Alert, ...]]:
    """The lane with this creep, or with none. Told are its beginning and its end; between them the status has it."""
    after = replace(state, creep=found)
    if (found is None) == (state.creep is None):
        return after, ()
    if found is None:
        return after, (lane_alert(after, "note_ended", "info", at_ms, BASELINE_CREEP),)
    return after, (lane_alert(after, "noted", "warning", at_ms, BASELINE_CREEP),)
