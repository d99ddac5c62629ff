"""Is this SAE of these activations, and read rightly? A wrong reading gives features that are confident and wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from msgspec import Struct

from stream_interp.sae.encoder import SAE

Verdict = Literal["plausible", "misloaded", "other_reading_fits_better", "cannot_tell"]
Pairs = Iterable[tuple[torch.Tensor, torch.Tensor | None]]

MIN_TOKENS = 1_000
DENSE = 0.1  # a feature that fires on more than this share of tokens
CLEARLY_BETTER = 0.05  # of explained variance
LEAST_L0, LARGEST_L0_SHARE = 0.5, 0.25


class Measured(Struct, frozen=True, kw_only=True):
    """What one reading gives. Explained variance is None where the outputs that a transcoder aims at are missing.

    `explained_variance` = 1 - E‖y - ŷ‖² / (E‖y‖² - ‖E y‖²) over all tokens, sums in float64 (the streaming form; not a
    mean of ratios, and not blind to a constant shift); `…_ordinary` is the same without tokens of massive activations.
    """

    explained_variance: float | None
    explained_variance_ordinary: float | None
    l0: float
    dead_share: float
    dense_share: float


class Reading(Struct, frozen=True, kw_only=True):
    """Another way in which the same parameters could have been meant."""

    name: str
    explained_variance_ordinary: float


class Checked(Struct, frozen=True, kw_only=True):
    """The verdict and what it rests on."""

    verdict: Verdict
    why: str
    tokens: int
    massive_tokens: int
    measured: Measured
    other_readings: list[Reading]


def check(sae: SAE, pairs: Callable[[], Pairs], massive: torch.Tensor) -> Checked:
    """Runs `sae` on activations, and on each way of misreading it.

    Args:
        sae: as it was loaded.
        pairs: gives, each time it is called, (x [m, d_in], y [m, d_out]) of all tokens in order; y None: y is x.
        massive: [n] bool, tokens with massive activations.

    Raises:
        UsageError: the activations are of another width.
    """
    measured, scale = _measure(sae.encode, sae.reconstruct_from, sae, pairs(), massive)
    n = len(massive)
    verdict, why = _judge(sae, measured, n)
    readings = []
    if n >= MIN_TOKENS and measured.explained_variance_ordinary is not None:
        for name, encode, reconstruct in _misreadings(sae, scale):
            other, _ = _measure(encode, reconstruct, sae, pairs(), massive)
            if other.explained_variance_ordinary is not None:
                readings.append(Reading(name=name, explained_variance_ordinary=other.explained_variance_ordinary))
        verdict, why = _compare(verdict, why, measured.explained_variance_ordinary, readings)
    return Checked(
        verdict=verdict,
        why=why,
        tokens=n,
        massive_tokens=int(massive.sum()),
        measured=measured,
        other_readings=readings,
    )


_Encode = Callable[[torch.Tensor], torch.Tensor]
_Reconstruct = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _measure(
    encode: _Encode, reconstruct: _Reconstruct, sae: SAE, pairs: Pairs, massive: torch.Tensor
) -> tuple[Measured, float]:
    """And √d_in / mean ‖x‖ of the ordinary tokens."""
    every, ordinary = _Errors(), _Errors()
    fired = torch.zeros(sae.d_sae, dtype=torch.int64, device=sae.device)
    n, norm_sum = 0, 0.0
    for x, y in pairs:
        usual = ~massive[n : n + len(x)]
        n += len(x)
        acts = encode(x)
        fired += (acts != 0).sum(0)
        norm_sum += float(x[usual].double().norm(dim=1).sum())
        target = x if y is None else y
        is_explained = sae.explains == "input" or (sae.explains == "output" and y is not None)
        if is_explained and target.shape[1] == sae.config.d_out:
            error = target.double() - reconstruct(x, acts).cpu().double()
            every.add(target, error)
            ordinary.add(target[usual], error[usual])
    shares = fired.double() / max(n, 1)
    measured = Measured(
        explained_variance=every.explained_variance(),
        explained_variance_ordinary=ordinary.explained_variance(),
        l0=float(shares.sum()),
        dead_share=float((fired == 0).double().mean()),
        dense_share=float((shares > DENSE).double().mean()),
    )
    return measured, sae.d_in**0.5 * max(n - int(massive.sum()), 1) / max(norm_sum, 1e-300)


class _Errors:
    def __init__(self) -> None:
        self._n, self._err_sq, self._sq = 0, 0.0, 0.0
        self._sum: torch.Tensor | None = None

    def add(self, target: torch.Tensor, error: torch.Tensor) -> None:
        y = target.double()
        self._n += len(y)
        self._err_sq += float(error.square().sum())
        self._sq += float(y.square().sum())
        self._sum = y.sum(0) if self._sum is None else self._sum + y.sum(0)

    def explained_variance(self) -> float | None:
        """None without tokens, or where they are all the same."""
        if self._sum is None or self._n == 0:
            return None
        variance = self._sq / self._n - float((self._sum / self._n).square().sum())
        return 1 - self._err_sq / self._n / variance if variance > 1e-12 * self._sq / self._n else None


def _judge(sae: SAE, measured: Measured, n: int) -> tuple[Verdict, str]:
    if n < MIN_TOKENS:
        return "cannot_tell", f"{n} tokens, at least {MIN_TOKENS} are needed"
    largest = LARGEST_L0_SHARE * sae.d_sae
    if sae.canonical.k is None and not LEAST_L0 <= measured.l0 <= largest:
        return "misloaded", f"L0 is {measured.l0:.2f}, expected {LEAST_L0} to {largest:.0f} of {sae.d_sae} features"
    explained = measured.explained_variance_ordinary
    if explained is None:
        if sae.explains == "nothing":
            return "cannot_tell", "one layer of a cross-layer transcoder makes no output that could be compared"
        return "cannot_tell", (
            "no target to compare the output with: give acts_out, what a transcoder aims at; "
            "or the activations are all the same or not finite"
        )
    if not explained >= 0:
        return "misloaded", f"explained variance is {explained:.3f}: worse than the mean of the activations"
    told = f"explained variance is {explained:.3f}, L0 {measured.l0:.1f}"
    jumps = sae.config.architecture == "jumprelu" and not sae.config.signed
    if jumps and not (sae.canonical.threshold > 0).any():
        # an SAE of 32 features a token had 0.78 for 0.82 without its threshold, L0 5 % of d_sae: no number tells
        return (
            "cannot_tell",
            f"{told}, but no threshold is above 0, so that it fires as a ReLU: was the threshold lost?",
        )
    return "plausible", told


def _compare(verdict: Verdict, why: str, explained: float, readings: list[Reading]) -> tuple[Verdict, str]:
    best = max(readings, key=lambda reading: reading.explained_variance_ordinary, default=None)
    if best is None or not best.explained_variance_ordinary >= explained + CLEARLY_BETTER:
        return verdict, why
    told = f"{why}; {best.name}, it would be {best.explained_variance_ordinary:.3f}"
    return ("misloaded" if verdict == "misloaded" else "other_reading_fits_better"), told


def _misreadings(sae: SAE, scale: float) -> Iterator[tuple[str, _Encode, _Reconstruct]]:
    canonical = sae.canonical
    if canonical.b_dec is not None and sae.d_in == sae.config.d_out and canonical.b_dec.any():
        shift = (canonical.b_dec @ canonical.W_enc).double()  # float32 will do to tell two readings apart
        flipped = canonical.b_enc.double() + (shift if sae.config.centred else -shift)
        other = replace(sae, canonical=replace(canonical, b_enc=flipped.to(sae.dtype)))
        name = (
            "without subtracting b_dec from the input" if sae.config.centred else "with b_dec subtracted from the input"
        )
        yield name, other.encode, other.reconstruct_from
    if canonical.magnitude is None and canonical.threshold.any():
        other = replace(sae, canonical=replace(canonical, threshold=torch.zeros_like(canonical.threshold)))
        yield "with its threshold ignored", other.encode, other.reconstruct_from
    if canonical.normalisation == "none" and sae.d_in == sae.config.d_out and canonical.W_skip is None:
        yield (
            f"with the input scaled to √d_in (activation_scale={scale:.6g})",
            lambda x: sae.encode(x * scale),
            lambda _x, acts: sae.decode(acts) / scale,
        )
