"""A lane's requests for measurements: as long as real ones, and an SAE of any size that fires as often as asked."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch

from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.requests import LaneShape
from stream_interp.records.lane import Lane
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.records.snapshot import Snapshot
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.encoder import SAE

UNIT_TOKENS, SHORTEST, LONGEST = 24, 16, 512
MODEL, HOOK = "bench", "layer"


def firing_sae(d_in: int, d_sae: int, l0: float, k: int | None = None, dtype: torch.dtype = torch.float32) -> SAE:
    """Random weights; on standard normal activations `l0` features of a token fire, or with `k` the k largest."""
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(d_in, d_sae, generator=generator) / d_in**0.5
    threshold = NormalDist().inv_cdf(1 - l0 / d_sae) + torch.rand(d_sae, generator=generator) / 50
    canonical = Canonical(
        W_enc=W_enc.to(dtype), b_enc=torch.zeros(d_sae, dtype=dtype), threshold=threshold.to(dtype),
        W_dec=W_enc.T.contiguous().to(dtype), b_dec=torch.zeros(d_in, dtype=dtype), W_skip=None, magnitude=None, k=k,
        grouped=False, normalisation="none",
    )  # fmt: skip
    architecture = "jumprelu" if k is None else "topk"
    config = SAEConfig(
        family="bench", architecture=architecture, d_in=d_in, d_sae=d_sae, d_out=d_in, k=k, centred=False
    )
    return SAE(config, f"{d_in}x{d_sae}".rjust(64, "0"), canonical)


def entry_of(sae: SAE, *, calibrated: bool = True) -> LaneEntry:
    """The lane, with a projector or still without one."""
    r = min(sae.d_in, MOMENT_COORDINATES)
    more = {
        "projector_version": 1, "unit_tokens": UNIT_TOKENS, "mean": torch.zeros(r, dtype=torch.float64),
        "whitening": torch.eye(r, dtype=torch.float64), "cap": np.ones(sae.d_sae, np.float32),
        "surprise": np.ones(sae.d_sae, np.float32),
    }  # fmt: skip
    lane = Lane(model_id=MODEL, hook_name=HOOK, sae_fingerprint=sae.fingerprint)
    shape = LaneShape(lane=lane, **(more if calibrated else {}))  # type: ignore[arg-type]
    return LaneEntry(shape, sae, sae.d_in, sae.d_in)


def snapshots(d_in: int, requests: int) -> list[Snapshot]:
    """Requests in one record each; lengths log-uniform from SHORTEST to LONGEST, aligned to nothing."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), requests)).astype(int)
    return [
        Snapshot(
            model_id=MODEL, hook_name=HOOK, request_id=f"request-{i}", acts_dtype="float16", request_tokens=int(n),
            acts=rng.standard_normal((n, d_in), np.float32).astype(np.float16),
        )
        for i, n in enumerate(lengths)
    ]  # fmt: skip
