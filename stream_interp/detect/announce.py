"""What DETECT says of a lane to the person who started it."""

from __future__ import annotations

from stream_interp.detect.state import ANCHOR_BYTES, LaneState, armed_bytes, learning_bytes
from stream_interp.observe.logs import About
from stream_interp.records.alert import Alert
from stream_interp.records.moments import MOMENT_COORDINATES


def limits_line(max_lanes: int, baseline_requests: int, blocks: int) -> str:
    """How large the state can become. A lane of b blocks has b strata beside its unit: short requests, b - 1 blocks."""
    learning = learning_bytes(MOMENT_COORDINATES, 0, baseline_requests, blocks)
    armed = armed_bytes(0, baseline_requests, [baseline_requests] * blocks)
    return (
        f"state: at most {max_lanes:,} lanes a partition; a lane holds at most {learning:,} bytes and "
        f"{learning_bytes(0, 1, 0, blocks)} a feature while it learns, {armed:,} bytes and "
        f"{armed_bytes(1, 0, [0] * blocks)} a feature once armed ({ANCHOR_BYTES} more where another is its anchor), "
        "and up to twice as much again for its last two checkpoints, which evidence is copied from"
    )


def alert_line(alert: Alert) -> About:
    """A transition that has been told, with all that finds it again."""
    cause = f", {alert.cause_hint}" if alert.cause_hint else ""
    return About(
        f"lane {alert.lane.lane_id} ({alert.lane.model_id}/{alert.lane.hook_name}): incident {alert.incident_id} "
        f"{alert.transition}, {alert.severity}{cause}",
        lane_id=alert.lane.lane_id,
        partition=alert.position.partition,
        offset=alert.position.offset,
        incident_id=alert.incident_id,
        event_id=alert.event_id,
    )


def armed_line(state: LaneState) -> str:
    """Of an armed lane: its thresholds, what is covered, and how large its evidence may become."""
    assert state.tests is not None
    assert state.baseline is not None
    lane, tests, header = state.lane, state.tests, state.baseline.header
    held = armed_bytes(tests.d_sae, header.requests, list(header.strata.values()))
    held += ANCHOR_BYTES * tests.d_sae if state.anchor else 0
    a_weeks = ", ".join(f"{group} {a:,.0f}" for group, a in sorted(tests.thresholds.items()))
    armed = ", ".join(f"{count} of {group}" for group, count in sorted(tests.armed_by_group.items()) if count)
    return (
        f"lane {lane.lane_id} ({lane.model_id}/{lane.hook_name}): armed by baseline {header.version}; "
        f"thresholds A in weeks: {a_weeks}; tests: {armed}; {tests.features_not_covered} features not covered; "
        f"{held:,} bytes of state"
    )
