"""Conditions of a lane beside its incident: what a window says of them, and the transitions they begin and end with.

Blind: no windows, windows for another projector, requests that are not encoded as they must be. Not to be trusted: a
clock ahead of the log, a record that cannot be used. Pure; each gives the state after it.
"""

from __future__ import annotations

from dataclasses import replace

from stream_interp.detect.alerts import lane_alert
from stream_interp.detect.state import LaneState
from stream_interp.records.alert import Alert, Transition
from stream_interp.records.window import DTYPE_UNAVAILABLE, Window

MAX_CLOCK_LEAD_MS = 60_000
MAX_CLOCK_LAG_MS = 60_000
MAX_DEAF_MS = 60_000  # a projector travels for seconds
UNENCODED_MS = 60_000  # of several ENCODEs one may lack the dtype: a window of another must not end it
NO_WINDOWS, OTHER_PROJECTOR = "no_windows", "other_projector"
CLOCK, COMPUTE_DTYPE = "clock", "compute_dtype"


def seeing_again(state: LaneState, window: Window) -> tuple[LaneState, tuple[Alert, ...]]:
    """A window came, so the lane is not blind for want of any."""
    if not state.blind:
        return state, ()
    after = replace(state, blind=False)
    return after, (lane_alert(after, "seeing", "info", window.header.closed_at_ms, NO_WINDOWS),)


def unheard(state: LaneState) -> tuple[LaneState, tuple[Alert, ...]]:
    """Windows come, but made for another projector: a minute of that is no journey any more."""
    since_ms = state.uncounted_since_ms or state.closed_at_ms
    deaf = state.deaf or state.closed_at_ms - since_ms > MAX_DEAF_MS
    after = replace(state, uncounted_since_ms=since_ms, deaf=deaf)
    if deaf == state.deaf:
        return after, ()
    return after, (lane_alert(after, "blind", "critical", state.closed_at_ms, OTHER_PROJECTOR),)


def heard_again(state: LaneState) -> tuple[LaneState, tuple[Alert, ...]]:
    """One came that was made for the lane's projector."""
    after = replace(state, uncounted_since_ms=0, deaf=False)
    if not state.deaf:
        return after, ()
    return after, (lane_alert(after, "seeing", "info", state.closed_at_ms, OTHER_PROJECTOR),)


def encoded_or_not(state: LaneState, window: Window) -> tuple[LaneState, tuple[Alert, ...]]:
    """Requests that no ENCODE encoded as the projector says: nobody judges them, so the lane is not *ok*."""
    header = window.header
    if header.compute_dtype != state.compute_dtype or DTYPE_UNAVAILABLE in header.not_counted:
        state = replace(state, unencoded_ms=state.closed_at_ms)
    unencoded = state.unencoded_ms > 0 and state.closed_at_ms < state.unencoded_ms + UNENCODED_MS
    if unencoded == state.unencoded:
        return state, ()
    after = replace(state, unencoded=unencoded)
    transition: Transition = "blind" if unencoded else "seeing"
    alert = lane_alert(after, transition, "critical" if unencoded else "info", state.closed_at_ms, COMPUTE_DTYPE)
    return after, (alert,)


def sound_again(state: LaneState, at_ms: int) -> tuple[LaneState, tuple[Alert, ...]]:
    """The fault, if there is one, is over."""
    if not state.fault:
        return state, ()
    alert = lane_alert(state, "integrity_restored", "info", at_ms, state.fault)
    return replace(state, fault=""), (alert,)


def clocked(state: LaneState, window: Window, append_ms: int) -> tuple[LaneState, int, tuple[Alert, ...]]:
    """The window's time; one far ahead of its append time is replaced by it, so that it cannot deafen the lane.

    One far behind the lane's own time earns none until it has caught up: till then drift may not alarm, which must be
    said. That it is behind the log, too, tells it from a right clock beside a fast one.
    """
    closed_at_ms = window.header.closed_at_ms
    if closed_at_ms > append_ms + MAX_CLOCK_LEAD_MS:
        closed_at_ms = append_ms
        state = replace(state, fast_clock_ms=append_ms)
    elif closed_at_ms < min(append_ms, state.closed_at_ms) - MAX_CLOCK_LAG_MS:
        state = replace(state, fast_clock_ms=append_ms)
    # One fast ENCODE among several: every other window is right, and the fault must not end and begin with each.
    fault = state.fast_clock_ms > 0 and append_ms < state.fast_clock_ms + MAX_CLOCK_LEAD_MS
    if fault == state.clock_fault:
        return state, closed_at_ms, ()
    after = replace(state, clock_fault=fault)
    transition: Transition = "integrity_error" if fault else "integrity_restored"
    alert = lane_alert(after, transition, "critical" if fault else "info", closed_at_ms, CLOCK)
    return after, closed_at_ms, (alert,)
