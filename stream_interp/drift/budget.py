"""One false-alarm budget for all tests of a lane: Σ shares = 1 over the armed tests, A_j = 1/(s_j · alarms a week)."""

from __future__ import annotations

from collections.abc import Mapping

GROUP_SHARES: dict[str, float] = {"t0": 0.3, "features": 0.4, "means": 0.1, "magnitude": 0.1, "health": 0.1}


def thresholds(armed: Mapping[str, int], false_alarms_per_week: float) -> dict[str, float]:
    """A (in weeks) of every test of each group, for the numbers of armed one-sided tests by group.

    Equal shares inside a group; shares of groups without an armed test are spread over the others in proportion.
    """
    present = {group: GROUP_SHARES[group] for group, tests in armed.items() if tests > 0}
    total = sum(present.values())
    return {group: float(armed[group] / (share / total * false_alarms_per_week)) for group, share in present.items()}
