"""What there is to know of a loaded SAE without activations."""

from __future__ import annotations

import torch
from msgspec import Struct

from stream_interp.sae.config import SAEConfig
from stream_interp.sae.encoder import SAE


class Spread(Struct, frozen=True):
    """Of one number a feature."""

    smallest: float
    median: float
    largest: float
    zeros: int


class Description(Struct, frozen=True, kw_only=True):
    """As it computes, factors folded in: `thresholds` in units of its acts, `decoder_norms` in those of its output."""

    config: SAEConfig
    fingerprint: str
    memory_bytes: int
    thresholds: Spread
    decoder_norms: Spread


def describe(sae: SAE) -> Description:
    """Facts of `sae`; reads every decoder row once."""
    canonical = sae.canonical
    norms = torch.cat([rows.double().norm(dim=1) for rows in torch.split(canonical.W_dec, 4_096)])
    return Description(
        config=sae.config,
        fingerprint=sae.fingerprint,
        memory_bytes=sae.memory_bytes,
        thresholds=_spread(canonical.threshold.double()),
        decoder_norms=_spread(norms),
    )


def _spread(values: torch.Tensor) -> Spread:
    return Spread(float(values.min()), float(values.median()), float(values.max()), int((values == 0).sum()))
