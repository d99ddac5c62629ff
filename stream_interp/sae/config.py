"""What one SAE computes, in words that are the same for every family."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Architecture = Literal["standard", "gated", "jumprelu", "topk", "groupmax"]
# `…_in`: as published transcoders have it, whose output is of another hook and is not scaled back.
Normalisation = Literal[
    "none",
    "expected_average_only_in",
    "constant_norm_rescale",
    "layer_norm",
    "constant_norm_rescale_in",
    "layer_norm_in",
    "mean_std",
]


class SAEConfig(Struct, frozen=True, kw_only=True):
    """What was read from a checkpoint, before any folding.

    `architecture`: `standard` = relu(p), `jumprelu` = relu(p) where p > threshold (>= with `inclusive`; with `signed`
    p itself, which may be negative), `topk` = relu of the k largest p,
    `groupmax` = relu of the largest p of each of k equal groups of neighbours, p = x'' @ W_enc + b_enc,
    x'' = x' - centred·b_dec, x' the normalised input; `gated` = relu(x'' @ W_enc·exp(r_mag) + b_mag) where
    x'' @ W_enc + b_gate > 0 (arXiv 2404.16014). The output is acts @ W_dec + b_dec, with `skip` + x @ W_skip,
    x the raw input (arXiv 2501.18823). A layer of a cross-layer transcoder has no output of its own: `reconstructs` is
    False, and only the whole set makes one.
    """

    family: str
    architecture: Architecture
    d_in: int
    d_sae: int
    d_out: int
    k: int | None = None  # topk and groupmax only
    centred: bool
    normalisation: Normalisation = "none"
    activation_scale: float = 1.0  # x' = activation_scale·x; only with expected_average_only_in
    transcodes: bool = False  # its output is to be another hook's, which only activations of both can judge
    skip: bool = False
    inclusive: bool = False  # jumprelu only
    signed: bool = False  # jumprelu only; false where no threshold is negative, since then it changes nothing
    reconstructs: bool = True
    rescaled_by_decoder_norm: bool = False  # p is multiplied by ‖W_dec row‖, decoding divides by it
    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None
