"""`step(state, item) → (state', events)`: the pure heart of DETECT.

No clock (a tick's time is the window's `closed_at`), no I/O, no randomness: decisions are a function of the log order
of the lane's windows partition and of nothing else, so a replay gives the same alerts with the same ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream_interp.detect import armed, health, learning
from stream_interp.detect.alerts import TRAFFIC_MIX, incident_alert, lane_alert
from stream_interp.detect.armed import canary, traffic
from stream_interp.detect.cause import followed
from stream_interp.detect.conditions import (
    NO_WINDOWS,
    clocked,
    encoded_or_not,
    heard_again,
    seeing_again,
    sound_again,
    unheard,
)
from stream_interp.detect.crossings import crossings
from stream_interp.detect.incident import Incident, opened_or_joined, recovered_or_not
from stream_interp.detect.rebaseline import rebaselined
from stream_interp.detect.state import RECENT_REQUESTS, Baseline, DetectSettings, LaneState
from stream_interp.records.alert import Alert, Position, Transition
from stream_interp.records.control import Versioned, read_baseline, read_projector
from stream_interp.records.lane import Lane
from stream_interp.records.window import FIT, SCORES, SHORT, Window, scores_of, widened

MS_PER_WEEK = 7 * 24 * 3600 * 1000
UNREADABLE_WINDOW = "unreadable_window"  # the fault that the next readable window ends
NOT_STATIONARY, CANARY = "not_stationary", "canary"


@dataclass(frozen=True)
class StepResult:
    """The state after a step and what it emits: alert transitions, and control records of its own making."""

    state: LaneState
    alerts: tuple[Alert, ...] = ()
    controls: tuple[Versioned, ...] = ()


def new_lane(lane: Lane, settings: DetectSettings, position: Position) -> LaneState:
    """A lane that has seen nothing and starts to learn."""
    return LaneState(lane=lane, settings=settings, position=position)


def fail(state: LaneState, fault: str, at_ms: int, position: Position) -> StepResult:
    """A record that the lane depends on cannot be used: `integrity_error` until the next of its kind that can.

    A lane has one fault at a time, so that each that was told of has its end: the fault of a baseline outlasts windows.
    """
    before = replace(state, position=position)
    if state.fault and fault in (state.fault, UNREADABLE_WINDOW):
        return StepResult(before)
    sound, ended = sound_again(before, at_ms)
    after = replace(sound, fault=fault)
    return StepResult(after, (*ended, lane_alert(after, "integrity_error", "critical", at_ms, fault)))


def go_blind(state: LaneState, after_position: int, at_ms: int, position: Position) -> StepResult:
    """The shell saw no window for too long; void if a later window was ticked meanwhile."""
    if state.blind or state.position.offset > after_position:
        return StepResult(replace(state, position=position))
    after = replace(state, blind=True, position=position)
    return StepResult(after, (lane_alert(after, "blind", "critical", at_ms, NO_WINDOWS),))


def step(state: LaneState, window: Window, position: Position, append_ms: int) -> StepResult:
    """One window. `append_ms` is the time at which the log took its last chunk."""
    before = replace(state, position=position)
    before, alerts = seeing_again(before, window)
    if before.fault == UNREADABLE_WINDOW:
        before, sound_alerts = sound_again(before, window.header.closed_at_ms)
        alerts += sound_alerts
    before, closed_at_ms, clock_alerts = clocked(before, window, append_ms)
    elapsed_ms = max(0, closed_at_ms - before.closed_at_ms) if before.closed_at_ms else 0
    before = _account(_dated(before, closed_at_ms), window)
    alerts = (*alerts, *clock_alerts)
    expected = FIT if before.phase == "fit" else before.projector.version if before.projector else FIT
    if before.phase == "refused":
        return StepResult(_not_counted(before, "baseline_refused", window.header.requests), alerts)
    if window.header.projector_version != expected:
        before, deaf_alerts = unheard(_not_counted(before, "projector_travelling", window.header.requests))
        return StepResult(before, alerts + deaf_alerts)
    before, dtype_alerts = encoded_or_not(before, window)
    alerts += dtype_alerts
    if window.header.compute_dtype != before.compute_dtype:
        return StepResult(_not_counted(before, "other_dtype", window.header.requests), alerts)
    before, heard_alerts = heard_again(before)
    before, alerts = _counted(before, window), alerts + heard_alerts
    result = _tick(before, window, elapsed_ms) if before.phase == "armed" else _learn(before, window)
    return replace(result, alerts=(*alerts, *result.alerts))


def _dated(state: LaneState, closed_at_ms: int) -> LaneState:
    created_ms = state.created_ms or closed_at_ms
    return replace(state, closed_at_ms=max(state.closed_at_ms, closed_at_ms), created_ms=created_ms)


def _account(state: LaneState, window: Window) -> LaneState:
    reasons = dict(state.reasons)
    for reason, count in window.header.not_counted.items():
        reasons[reason] = reasons.get(reason, 0) + count
    seen = window.header.requests + sum(window.header.not_counted.values())
    return replace(state, seen=state.seen + seen, reasons=reasons)


def _counted(state: LaneState, window: Window) -> LaneState:
    requests, dtype = window.header.requests, window.header.acts_dtype
    first = state.requests + requests if state.phase == "armed" else 0
    dtypes = state.acts_dtypes if dtype in state.acts_dtypes else {**state.acts_dtypes, dtype: first}
    short = window.header.strata.get(SHORT, 0) if state.tests is not None and SHORT in state.tests.strata else 0
    if short:  # ENCODE counts them among too_short: whether they are judged it cannot know
        state = _not_counted(state, "too_short", -short)
    return replace(state, counted=state.counted + requests + short, acts_dtypes=dtypes)


def _not_counted(state: LaneState, reason: str, requests: int) -> LaneState:
    return replace(state, reasons={**state.reasons, reason: state.reasons.get(reason, 0) + requests})


def _learn(state: LaneState, window: Window) -> StepResult:
    learned = learning.absorb(state.learned, window, state.closed_at_ms, state.position.offset)
    state = replace(state, learned=learned, requests=learned.requests)
    fit_requests = max(1, int(state.settings.baseline_requests * learning.FIT_SHARE))
    wanted = fit_requests if state.phase == "fit" else state.settings.baseline_requests - fit_requests
    return end_phase(state) if learned.requests >= wanted else StepResult(state)


def end_phase(state: LaneState) -> StepResult:
    """Ends the learning phase with what it has: the projector after *fit*, the baseline after *calibrate*."""
    assert state.learned is not None
    if state.phase == "calibrate":
        return _freeze(state, state.learned)
    version = max(state.closed_at_ms, state.relearned + 1)  # ENCODE has let go of all versions up to `relearned`
    projector = learning.make_projector(state.learned, state.lane, version, state.settings.unit)
    header, _ = read_projector(projector)
    after = replace(state, phase="calibrate", projector=header, learned=None, requests=0)
    return StepResult(after, controls=(projector,))


def _freeze(state: LaneState, learned: learning.Learned) -> StepResult:
    assert state.projector is not None
    p = learning.stationary(learned, state.settings.drift.tolerance)
    if p is None:
        refused = replace(state, phase="refused", learned=None)
        alert = lane_alert(refused, "integrity_error", "critical", state.closed_at_ms, NOT_STATIONARY)
        return StepResult(refused, (alert,))
    version = max(state.closed_at_ms, state.projector.version)
    record = learning.make_baseline(learned, state.lane, version, state.projector, state.settings.drift, p)
    after, alerts = rebaselined(state, Baseline(*read_baseline(record)), state.closed_at_ms)
    return StepResult(after, alerts, (record,))


def _tick(state: LaneState, window: Window, elapsed_ms: int) -> StepResult:
    assert state.tests is not None
    assert state.evidence is not None
    n, tests, drift = window.header.requests, state.tests, state.settings.drift
    passed = min(elapsed_ms / MS_PER_WEEK, armed.MOST_WEEKS)
    weeks = n / drift.requests_per_week if drift.clock == "requests" else passed
    tick = armed.update(tests, state.evidence, window, weeks, state.closed_at_ms)
    recent = np.concatenate([widened(state.recent_scores, len(SCORES)), scores_of(window)])
    sums, with_sae = health.of_window(window), window.header.d_sae > 0
    state = replace(
        state, evidence=tick.evidence, requests=state.requests + n, weeks=state.weeks + weeks,
        recent_scores=recent[-RECENT_REQUESTS:], health_now=health.decayed(state.health_now, sums, n),
        opinions=health.second_opinions_after(state.opinions, sums, with_sae),
    )  # fmt: skip
    state, tested = _self_test(state, n, weeks)
    state, notes = _note_traffic(state, window)
    result = _judge(state, window, tick)
    return replace(result, alerts=(*tested, *notes, *result.alerts))


def _self_test(state: LaneState, n: int, weeks: float) -> tuple[LaneState, tuple[Alert, ...]]:
    assert state.tests is not None
    now = canary.tick(state.canary, state.tests, state.settings.drift, n, weeks)
    after = replace(state, canary=now)
    if now.deaf == state.canary.deaf:
        return after, ()
    transition: Transition = "integrity_error" if now.deaf else "integrity_restored"
    return after, (lane_alert(after, transition, "critical" if now.deaf else "info", state.closed_at_ms, CANARY),)


def _note_traffic(state: LaneState, window: Window) -> tuple[LaneState, tuple[Alert, ...]]:
    """Lengths, positions and segments of requests: a note, no incident. When it ends its evidence starts anew."""
    assert state.tests is not None
    assert state.evidence is not None
    was, tests = state.traffic_note, state.tests.traffic
    now = traffic.noted(tests, state.evidence.traffic, was, window)
    after = replace(state, traffic_note=now)
    if was is not None and now is None:
        after = replace(after, evidence=replace(state.evidence, traffic=traffic.initial(tests)))
    if (was is None) == (now is None):
        return after, ()
    transition: Transition = "note_ended" if now is None else "noted"
    return after, (lane_alert(after, transition, "info", state.closed_at_ms, TRAFFIC_MIX),)


def _judge(state: LaneState, window: Window, tick: armed.Tick) -> StepResult:
    """Opens, escalates, updates, resolves."""
    assert state.tests is not None
    was, recovered = state.incident, False
    if was is not None:
        was, recovered = recovered_or_not(was, state.tests, window, state.closed_at_ms)
    if was is not None and recovered:
        resolved = begin_evidence(state)
        return StepResult(resolved, (incident_alert(state, was, "resolved", window.header.window_id),))
    found = crossings(state.tests, tick)
    now = opened_or_joined(
        was, found, state.tests, state.requests, state.closed_at_ms, window, state.position, state.incidents + 1
    )
    if now is not None:
        now = followed(state, now, found, window, opens=was is None)
    state = replace(state, incident=now, incidents=now.number if now else state.incidents)
    transition = _transition(was, now)
    if now is None or transition is None:
        return StepResult(state)
    return StepResult(state, (incident_alert(state, now, transition, window.header.window_id),))


def begin_evidence(state: LaneState) -> LaneState:
    """An armed lane after an incident: all evidence anew; that of the traffic had no part in it."""
    assert state.tests is not None
    assert state.evidence is not None
    renewed = replace(armed.no_evidence(state.tests), traffic=state.evidence.traffic)
    return replace(
        state, incident=None, evidence=renewed, since_request=state.requests, since_offset=state.position.offset
    )


def _transition(was: Incident | None, now: Incident | None) -> Transition | None:
    """One alert when it opens, grows more severe, has another group of tests or another cause; not per feature."""
    if now is None:
        return None
    if was is None:
        return "opened"
    if was.severity != now.severity:
        return "escalated"
    return "updated" if was.groups != now.groups or was.cause not in ("", now.cause) else None
