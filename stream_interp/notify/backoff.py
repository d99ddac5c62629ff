"""How long to wait before the next try of a delivery. Pure."""

from __future__ import annotations

FIRST_S, LONGEST_S = 2.0, 300.0


def wait_s(tries: int, share: float, retry_after_s: float | None = None) -> float:
    """Exponential with jitter over the upper half of each step.

    Full jitter could spend all tries within a few seconds; so, the default 8 tries always outlive an outage of two
    minutes.

    Args:
        tries: made so far, ≥ 1.
        share: random in [0, 1).
        retry_after_s: what the receiver asked for: never less than that.
    """
    step_s = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 16))
    return max(step_s * (0.5 + 0.5 * share), retry_after_s or 0.0)
