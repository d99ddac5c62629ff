"""A checkpoint of any size for measurements: random weights, thresholds that leave about 1 % of features firing."""

from __future__ import annotations

import tempfile

import torch

from stream_interp import sae


def random_sae(d_in: int, d_sae: int, device: str) -> tuple[sae.SAE, torch.Tensor]:
    """A JumpReLU SAE, and its `W_enc` [d_in, d_sae] for the bare product."""
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn(d_in, d_sae, generator=generator) / d_in**0.5
    with tempfile.TemporaryDirectory() as folder:
        zeros = torch.zeros(d_sae), torch.zeros(d_in)
        sae.save_saelens(folder, W_enc, zeros[0], W_enc.T.contiguous(), zeros[1], threshold=2.4)
        return sae.load(folder, device=device), W_enc.to(device)
