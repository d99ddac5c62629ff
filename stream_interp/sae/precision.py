"""In what numbers an SAE multiplies: ways that differ in speed, and in which features they say fire.

A way has the name that records carry, `compute_dtype`: the dtype of the product, or `exact`, which is a product of
integers with all that it leaves open decided by `sae.exact`. Weights are loaded in float32, and every other way is made
from those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from stream_interp.errors import ComputeDtypeUnavailable
from stream_interp.sae.blocks import BLOCK_TOKENS
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.encoder import SAE
from stream_interp.sae.exact import Exact
from stream_interp.sae.firings import Firings
from stream_interp.sae.normalisation import Normalised

FLOAT32, EXACT = "float32", "exact"
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
COMPUTE_DTYPES = (FLOAT32, *_HALVES, EXACT)
AGREEMENT = 0.999  # with float32, below which a way is not taken
MEASURED_TOKENS = 8_192
_PART_TOKENS = 2_048  # of them at once: what fires in all might not fit
_FIRST_LOOK_TOKENS, _FIRST_LOOK_FEATURES = 32, 1_024  # an emulated way would take minutes for all
_HOPELESS, _HARMLESS_S = 4.0, 5e-3  # times as slow as float32; below so many seconds a first look says nothing
_AT_MOST_S = 2.0  # of float32 alone; a worker that measures much longer would look dead


class Choice(NamedTuple):
    """The way to take, and for people what each way measured."""

    compute_dtype: str
    line: str


class _Measured(NamedTuple):
    """Of one way: its time over that of float32 on the same tokens in turn, tokens/s, and how far firings agree.

    That is not looked at where the way is not faster.
    """

    time_ratio: float
    tokens_per_s: float
    agreement: float | None


def in_dtype(sae: SAE, compute_dtype: str) -> SAE:
    """The SAE of `load(dtype=None)` multiplying in that way, with the same fingerprint.

    Raises:
        ComputeDtypeUnavailable: not a way that is known here, or one that does not work on the SAE's device.
    """
    if compute_dtype == FLOAT32:
        return sae
    if compute_dtype == EXACT:
        return _exact(sae)
    if compute_dtype not in _HALVES:
        raise ComputeDtypeUnavailable(compute_dtype, f"known here are {', '.join(COMPUTE_DTYPES)}")
    return replace(sae, canonical=_halved(sae.canonical, _HALVES[compute_dtype], inclusive=sae.config.inclusive))


def copy_bytes(sae: SAE, compute_dtype: str) -> int:
    """Memory that `in_dtype` takes beside the SAE itself."""
    if compute_dtype == FLOAT32:
        return 0
    return sae.canonical.W_enc.nbytes * 5 // 4 if compute_dtype == EXACT else sae.memory_bytes // 2


def choose(sae: SAE, x: torch.Tensor, clock: Callable[[], float] = time.perf_counter) -> Choice:
    """The fastest way whose firings on `x` [n, d_in] agree with float32 on AGREEMENT of the entries that either has.

    Args:
        sae: of float32, on the device where it is to run.
        x: tokens of the lane, some MEASURED_TOKENS; fewer of them are used where float32 would take long.
        clock: in seconds.
    """
    sae.firings(x[:1])
    block_s = _seconds(sae, x[:1], clock)  # one token takes as long as a block
    if block_s > _AT_MOST_S:
        return Choice(FLOAT32, f"{FLOAT32} (not measured: {BLOCK_TOKENS} tokens take {block_s:.1f} s)")
    x = x[: int(BLOCK_TOKENS * _AT_MOST_S / block_s)]
    found = {name: _measured(sae, name, x, clock) for name in COMPUTE_DTYPES[1:]}
    good = {name: m.time_ratio for name, m in found.items() if isinstance(m, _Measured) and _agrees(m)}
    taken = min(good, key=good.__getitem__, default=FLOAT32)
    told = "; ".join(f"{name} {_told(m)}" for name, m in found.items())
    return Choice(taken, f"{taken} (on {len(x):,} tokens, against float32: {told})")


def _measured(sae: SAE, name: str, x: torch.Tensor, clock: Callable[[], float]) -> _Measured | str:
    """Or why not."""
    if is_emulated(sae, name, clock):
        return "is emulated"
    try:
        way = in_dtype(sae, name)
    except ComputeDtypeUnavailable:
        return "does not work here"
    way.firings(x[:_PART_TOKENS])  # whatever it does once
    float32_s = way_s = 0.0
    for part in torch.split(x, _PART_TOKENS):
        float32_s, way_s = float32_s + _seconds(sae, part, clock), way_s + _seconds(way, part, clock)
    agrees = agreement(sae, way, x) if way_s < float32_s else None  # it takes as long as both together
    return _Measured(way_s / float32_s, len(x) / way_s, agrees)


def _agrees(measured: _Measured) -> bool:
    return measured.agreement is not None and measured.agreement >= AGREEMENT


def _told(measured: _Measured | str) -> str:
    if isinstance(measured, str):
        return measured
    speed = f"{1 / measured.time_ratio:.2f} times as fast ({measured.tokens_per_s:,.0f} tokens/s)"
    return speed if measured.agreement is None else f"{speed}, firings agree to {measured.agreement:.4f}"


def is_emulated(sae: SAE, compute_dtype: str, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether products in that dtype are so much slower here than in float32 that a batch would take minutes."""
    if compute_dtype not in _HALVES:
        return False
    W_enc = sae.canonical.W_enc[:, :_FIRST_LOOK_FEATURES]
    taken_s = []
    for W in (W_enc, W_enc.to(_HALVES[compute_dtype])):
        tokens = W[:, :_FIRST_LOOK_TOKENS].T.contiguous()
        float(torch.mm(tokens, W)[0, 0])  # whatever it does once
        start = clock()
        float(torch.mm(tokens, W)[0, 0])
        taken_s.append(clock() - start)
    return taken_s[1] > max(_HOPELESS * taken_s[0], _HARMLESS_S)


def agreement(one: SAE, other: SAE, x: torch.Tensor) -> float:
    """|A∩B| / |A∪B| of the (token, feature) entries that fire; NaN where nothing does, which is no evidence."""
    both = either = 0
    for part in torch.split(x, _PART_TOKENS):
        a, b = (_entries(sae.firings(part), sae.d_sae) for sae in (one, other))
        common = int(torch.isin(a, b, assume_unique=True).sum())
        both, either = both + common, either + len(a) + len(b) - common
    return both / either if either else math.nan


def _entries(fired: Firings, d_sae: int) -> torch.Tensor:
    return fired.token * d_sae + fired.feature


def _seconds(sae: SAE, x: torch.Tensor, clock: Callable[[], float]) -> float:
    start = clock()
    for part in torch.split(x, _PART_TOKENS):
        sae.firings(part).value.cpu()
    return max(clock() - start, 1e-9)


@dataclass(frozen=True, eq=False)
class _ExactSAE(SAE):
    exact: Exact = field(repr=False)

    @property
    def memory_bytes(self) -> int:
        return super().memory_bytes + self.exact.memory_bytes

    def _fire(self, normalised: Normalised, at_most: int | None = None) -> Firings:
        return self.exact.fire(normalised.x.to(self.dtype), at_most)


def _exact(sae: SAE) -> SAE:
    if sae.canonical.k is not None:
        raise ComputeDtypeUnavailable(EXACT, f"features of a {sae.config.architecture} SAE fire by comparison")
    if sae.device.type != "cpu":
        raise ComputeDtypeUnavailable(EXACT, f"it works on a CPU, this SAE is on {sae.device}")
    return _ExactSAE(sae.config, sae.fingerprint, sae.canonical, Exact(sae.canonical))


def _halved(canonical: Canonical, dtype: torch.dtype, *, inclusive: bool) -> Canonical:
    """`canonical` of float32 rounded to `dtype`; what was folded into `b_enc` becomes a centre again."""
    b_enc, centre = canonical.b_enc.double(), canonical.centre
    if centre is not None:
        parts = torch.split(canonical.W_enc, 1_024, dim=1)
        b_enc = b_enc + torch.cat([centre.double() @ part.double() for part in parts])
    threshold = canonical.threshold.to(dtype)
    if inclusive:  # the number just below t, of each dtype its own
        up, down = (torch.full((), bound, device=threshold.device) for bound in (torch.inf, -torch.inf))
        threshold = canonical.threshold.nextafter(up).to(dtype).nextafter(down.to(dtype))
    W_dec = canonical.W_dec.to(dtype) if isinstance(canonical.W_dec, torch.Tensor) else canonical.W_dec
    magnitude = canonical.magnitude and (canonical.magnitude[0].to(dtype), canonical.magnitude[1].to(dtype))
    halved = replace(
        canonical, W_enc=canonical.W_enc.to(dtype), b_enc=b_enc.to(dtype), threshold=threshold,
        W_dec=W_dec, b_dec=None if canonical.b_dec is None else canonical.b_dec.to(dtype),
        W_skip=None if canonical.W_skip is None else canonical.W_skip.to(dtype), magnitude=magnitude,
    )  # fmt: skip
    added = [t for t in halved.tensors if t is not halved.threshold]  # beyond an infinite threshold nothing fires
    if not all(bool(bound.isfinite()) for t in added for bound in t.aminmax()):
        raise ComputeDtypeUnavailable(str(dtype).removeprefix("torch."), "its numbers end below a parameter of the SAE")
    return halved
