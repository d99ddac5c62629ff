"""What there is to know of a loaded SAE without activations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from msgspec import Struct

from stream_interp.sae.config import SAEConfig
from stream_interp.sae.encoder import SAE
from stream_interp.sae.layered import LayeredSAE


class Spread(Struct, frozen=True):
    """Of one number a feature."""

    smallest: float
    median: float
    largest: float
    zeros: int


class Description(Struct, frozen=True, kw_only=True):
    """As it computes, factors folded in: `thresholds` in units of its acts, `decoder_norms` in those of its output.

    `decoder_norms` None: a layer of a cross-layer transcoder, which has no decoder of its own.
    """

    config: SAEConfig
    fingerprint: str
    memory_bytes: int
    thresholds: Spread
    decoder_norms: Spread | None


def describe(sae: SAE) -> Description:
    """Facts of `sae`; reads every decoder row once."""
    W_dec = sae.canonical.W_dec
    blocks = torch.split(W_dec, 4_096) if isinstance(W_dec, torch.Tensor) else W_dec.row_blocks() if W_dec else ()
    norms = [rows.double().norm(dim=1) for rows in blocks]
    return Description(
        config=sae.config,
        fingerprint=sae.fingerprint,
        memory_bytes=sae.memory_bytes,
        thresholds=_spread(sae.canonical.threshold.double()),
        decoder_norms=_spread(torch.cat(norms)) if norms else None,
    )


def describe_layers(layered: LayeredSAE) -> Iterator[Description]:
    """Facts of every layer, one loaded after the other."""
    return (describe(layered.layer(i)) for i in range(layered.n_layers))


def _spread(values: torch.Tensor) -> Spread:
    return Spread(float(values.min()), float(values.median()), float(values.max()), int((values == 0).sum()))
