"""Scalar health of an SAE on a lane, from sums that merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from stream_interp.drift import second_opinions
from stream_interp.drift.second_opinions import Opinion
from stream_interp.records.window import LaneSums, Window

HALF_LIFE_REQUESTS = 256  # of "now"
SIGNALS = ("explained_variance", "l0", "norm", "massive_share")


@dataclass(frozen=True)
class HealthSums:
    """Sums behind the health scalars; weights decay where the sums are of "now".

    Attributes:
        x_sum: [d_out] float64, Σ over the error tokens of what the SAE explains.
    """

    tokens: float
    sums: LaneSums
    x_sum: NDArray[np.float64]


def of_window(window: Window) -> HealthSums:
    """The sums of one window."""
    x_sum: NDArray[np.float64] = window.arrays["x_sum"].astype(np.float64)
    return HealthSums(float(window.header.tokens), window.header.sums, x_sum)


def add(a: HealthSums | None, b: HealthSums, weight_a: float = 1.0) -> HealthSums:
    """weight_a·a + b."""
    if a is None or a.x_sum.shape != b.x_sum.shape:  # of transcoders it once was that of the input: no use
        return b
    old, new = structs.asdict(a.sums), structs.asdict(b.sums)
    sums = LaneSums(**{name: weight_a * old[name] + new[name] for name in old})
    return HealthSums(weight_a * a.tokens + b.tokens, sums, weight_a * a.x_sum + b.x_sum)


def decayed(now: HealthSums | None, window: HealthSums, requests: int) -> HealthSums:
    """ "Now" after a window of so many requests."""
    return add(now, window, 0.5 ** (requests / HALF_LIFE_REQUESTS))


def scalars(health: HealthSums | None, with_sae: bool) -> dict[str, float | None]:
    """The signals by name; None where nothing was measured.

    explained_variance = 1 − (Σ‖e‖²/n) / ((Σ‖x‖² − ‖Σx‖²/n) / (n − 1)), over tokens without massive activations:
    SAELens' streaming form in float64, with the unbiased variance, for of few tokens the other one reads too low; l0 in
    features a token; norm = mean ‖x‖; massive_share of counted tokens.
    """
    values: dict[str, float | None] = dict.fromkeys(SIGNALS)
    if health is None or health.tokens <= 0:
        return values
    s = health.sums
    values["massive_share"] = s.massive_tokens / health.tokens
    if health.tokens > s.massive_tokens:
        values["norm"] = s.norm_sum / (health.tokens - s.massive_tokens)
    if with_sae:
        values["l0"] = s.l0_sum / health.tokens
        n, x_sum = s.error_tokens, health.x_sum
        variance = (s.x_sq_sum - float(x_sum @ x_sum) / n) / (n - 1) if n > 1 else 0.0
        values["explained_variance"] = 1 - s.err_sq_sum / n / variance if variance > 0 else None
    return values


def second_opinions_after(opinions: dict[str, Opinion], window: HealthSums, with_sae: bool) -> dict[str, Opinion]:
    """river's view of the signals after one more window."""
    updated = dict(opinions)
    for name, value in scalars(window, with_sae).items():
        if value is not None and np.isfinite(value):
            updated[name] = second_opinions.update(opinions.get(name, Opinion()), value)
    return updated


def reset(health: HealthSums) -> HealthSums:
    """Sums of nothing, of the same width."""
    return replace(health, tokens=0.0, sums=LaneSums(), x_sum=np.zeros_like(health.x_sum))
