"""What one SAE computes, in words that are the same for every family."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Architecture = Literal["standard", "jumprelu", "topk"]
Normalisation = Literal["none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"]


class SAEConfig(Struct, frozen=True, kw_only=True):
    """What was read from a checkpoint, before any folding.

    `architecture`: `standard` = relu(p), `jumprelu` = relu(p) where p > threshold, `topk` = relu of the k largest p,
    p = (x' - centred·b_dec) @ W_enc + b_enc, x' the normalised input.
    """

    family: str
    architecture: Architecture
    d_in: int
    d_sae: int
    d_out: int
    k: int | None = None  # topk only
    centred: bool
    normalisation: Normalisation = "none"
    activation_scale: float = 1.0  # x' = activation_scale·x; only with expected_average_only_in
    rescaled_by_decoder_norm: bool = False  # p is multiplied by ‖W_dec row‖, decoding divides by it
    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None
