"""Llama Scope: `hyperparams.json` + `checkpoints/final.safetensors`. JumpReLU with one threshold, not centred.

Read as SAELens reads it, since that is what users of these SAEs see: x' = s·x with s = √d_in / E‖x‖, and the stored
threshold times s. Its publishers' own code reports acts that are 1/s of these, in units of the raw activations.
"""

from __future__ import annotations

from math import isfinite, sqrt
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta, Struct, field

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.bare import Sizes, turned
from stream_interp.sae.formats.hints import agreed, refuse_k
from stream_interp.sae.tensors import LazyTensor, renamed

CONFIG_FILE, WEIGHTS_FILE = "hyperparams.json", "checkpoints/final.safetensors"
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec", "decoder.bias": "b_dec"}
_Width = Annotated[int, Meta(ge=1, le=1 << 40)]


class _AverageNorm(Struct, frozen=True):
    norm_in: float | None = field(name="in", default=None)


class _Config(Struct, frozen=True):
    d_model: _Width
    d_sae: _Width
    jump_relu_threshold: float
    dataset_average_activation_norm: _AverageNorm = _AverageNorm()
    hook_point_in: str | None = None
    hook_point_out: str | None = None
    act_fn: str = "jumprelu"
    norm_activation: str = "dataset-wise"
    apply_decoder_bias_to_pre_encoder: bool = False
    use_glu_encoder: bool = False


def _detect(root: Path) -> bool:
    return (root / CONFIG_FILE).is_file() and (root / WEIGHTS_FILE).is_file()


def _read(root: Path, hints: Hints) -> Checkpoint:
    path = root / CONFIG_FILE
    cfg = read_json(path, _Config)
    if cfg.act_fn != "jumprelu":
        raise SAELoadError("unknown_architecture", str(path), "act_fn jumprelu", repr(cfg.act_fn))
    _require_what_is_read(path, cfg)
    refuse_k(root, hints, "jumprelu")
    scale = _scale(root, cfg, hints)
    config = SAEConfig(
        family=FAMILY.name,
        architecture="jumprelu",
        d_in=cfg.d_model,
        d_sae=cfg.d_sae,
        d_out=cfg.d_model,
        centred=False,
        normalisation="expected_average_only_in",
        activation_scale=scale,
        hook_name=cfg.hook_point_in,
    )
    stored = renamed(root / WEIGHTS_FILE, open_safetensors(root / WEIGHTS_FILE), _NAMES)
    if "W_enc" not in stored:
        raise SAELoadError("missing_tensor", str(root / WEIGHTS_FILE), "encoder.weight", f"{sorted(stored)}")
    sizes = Sizes(cfg.d_model, cfg.d_sae, cfg.d_model)
    tensors = turned(stored, sizes, W_enc_transposed=True, W_dec_transposed=True)
    threshold = cfg.jump_relu_threshold * scale
    if not abs(threshold) <= torch.finfo(torch.float32).max:
        raise SAELoadError("not_finite", str(path), "jump_relu_threshold within float32", f"{threshold}")
    tensors["threshold"] = LazyTensor.made((cfg.d_sae,), torch.float32, lambda: torch.full((cfg.d_sae,), threshold))
    return Checkpoint(root, config, tensors)


FAMILY = Family("llama_scope", _detect, _read)


def _require_what_is_read(path: Path, cfg: _Config) -> None:
    """Its trainer can do more than SAELens reads, which ignores these fields."""
    if cfg.norm_activation != "dataset-wise":  # "inference" has its factor in the weights already
        raise SAELoadError(
            "unknown_normalisation", str(path), "norm_activation dataset-wise", repr(cfg.norm_activation)
        )
    if cfg.use_glu_encoder or cfg.apply_decoder_bias_to_pre_encoder:
        found = "use_glu_encoder" if cfg.use_glu_encoder else "apply_decoder_bias_to_pre_encoder"
        raise SAELoadError("unknown_architecture", str(path), "an encoder without gate and centring", found)
    if cfg.hook_point_out not in {None, cfg.hook_point_in}:  # a transcoder's output has a factor of its own
        expected = "an SAE, whose hook_point_out is its hook_point_in"
        raise SAELoadError("unknown_architecture", str(path), expected, f"{cfg.hook_point_in} to {cfg.hook_point_out}")


def _scale(root: Path, cfg: _Config, hints: Hints) -> float:
    norm = cfg.dataset_average_activation_norm.norm_in
    stated = None if norm is None or norm == 0 else sqrt(cfg.d_model) / norm
    scale = agreed(root, "activation_scale", hints.activation_scale, stated)
    if scale is None or not (isfinite(scale) and scale > 0):
        expected = "a positive dataset_average_activation_norm.in, or activation_scale="
        raise SAELoadError("missing_activation_scale", str(root / CONFIG_FILE), expected, f"{norm}")
    return scale
