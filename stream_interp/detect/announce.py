"""What DETECT says of a lane to the person who started it."""

from __future__ import annotations

from stream_interp.detect.state import LaneState, armed_bytes, learning_bytes
from stream_interp.records.moments import MOMENT_COORDINATES


def limits_line(max_lanes: int, baseline_requests: int) -> str:
    """How large the state can become."""
    learning = learning_bytes(MOMENT_COORDINATES, 0, baseline_requests)
    return (
        f"state: at most {max_lanes:,} lanes a partition; a lane holds at most {learning:,} bytes and 12 a feature "
        f"while it learns, {armed_bytes(0, baseline_requests):,} bytes and {armed_bytes(1, 0)} a feature once armed, "
        "and up to twice as much again for its last two checkpoints, which evidence is copied from"
    )


def armed_line(state: LaneState) -> str:
    """Of an armed lane: its thresholds, what is covered, and how large its evidence may become."""
    assert state.tests is not None
    assert state.baseline is not None
    lane, tests = state.lane, state.tests
    a_weeks = ", ".join(f"{group} {a:,.0f}" for group, a in sorted(tests.thresholds.items()))
    rate_tests = sum(int(of.armed.sum()) for of in tests.rates.values())
    return (
        f"lane {lane.lane_id} ({lane.model_id}/{lane.hook_name}): armed by baseline {state.baseline.header.version}; "
        f"thresholds A in weeks: {a_weeks}; {rate_tests} tests of {tests.features_armed} features and "
        f"{int(tests.scores.armed.sum())} of scores; {tests.features_not_covered} features not covered; "
        f"{armed_bytes(len(tests.rate_baseline), state.baseline.header.requests):,} bytes of state"
    )
