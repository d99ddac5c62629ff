"""SAELens 6.x: `cfg.json` + `sae_weights.safetensors`. BatchTopK saved for inference is `jumprelu` there."""

from __future__ import annotations

from math import isclose, isfinite
from pathlib import Path
from typing import Annotated, TypeVar, cast, get_args

import torch
from msgspec import Meta, Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints, LazyTensor
from stream_interp.sae.config import Architecture, Normalisation, SAEConfig
from stream_interp.sae.files import open_safetensors, read_json

CONFIG_FILE, WEIGHTS_FILE, SCALER_FILE = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"

_N = TypeVar("_N", int, float)
_Width = Annotated[int, Meta(ge=1)]


class _Metadata(Struct, frozen=True):
    sae_lens_version: str  # absent before 6.0, where other fields decide what is computed
    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None


class _Config(Struct, frozen=True):
    architecture: str
    d_in: _Width
    d_sae: _Width
    apply_b_dec_to_input: bool
    normalize_activations: str
    metadata: _Metadata
    reshape_activations: str = "none"
    k: int | None = None
    rescale_acts_by_decoder_norm: bool = False


class _Scaler(Struct, frozen=True):
    scaling_factor: float | None
    has_whitening: bool = False


def _detect(root: Path) -> bool:
    return (root / CONFIG_FILE).is_file() and not (root / "sae.safetensors").is_file()  # that one is sparsify's


def _read(root: Path, hints: Hints) -> Checkpoint:
    cfg = read_json(root / CONFIG_FILE, _Config)
    _require("unknown_architecture", root, get_args(Architecture), cfg.architecture)
    _require("unknown_normalisation", root, get_args(Normalisation), cfg.normalize_activations)
    _require("unknown_reshaping", root, ("none", "hook_z"), cfg.reshape_activations)  # [n, d_in] is hook_z flattened
    config = SAEConfig(
        family=FAMILY.name,
        architecture=cast(Architecture, cfg.architecture),
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        d_out=cfg.d_in,
        k=_k(root, cfg, hints),
        centred=cfg.apply_b_dec_to_input,
        normalisation=cast(Normalisation, cfg.normalize_activations),
        activation_scale=_activation_scale(root, cfg, hints),
        rescaled_by_decoder_norm=_rescaled(root, cfg),
        model_name=cfg.metadata.model_name,
        hook_name=cfg.metadata.hook_name,
        hf_hook_name=cfg.metadata.hf_hook_name,
    )
    return Checkpoint(root, config, _tensors(root))


FAMILY = Family("saelens", _detect, _read)


def _require(reason: str, root: Path, known: tuple[str, ...], found: str) -> None:
    if found not in known:
        raise SAELoadError(reason, str(root / CONFIG_FILE), f"one of {list(known)}", repr(found))


def _k(root: Path, cfg: _Config, hints: Hints) -> int | None:
    if cfg.architecture == "topk":
        return _agreed(root, "k", hints.k, cfg.k)
    if hints.k is not None:
        raise SAELoadError("k_unused", str(root), f"no k= for architecture {cfg.architecture}", f"k={hints.k}")
    return None


def _rescaled(root: Path, cfg: _Config) -> bool:
    if cfg.rescale_acts_by_decoder_norm and cfg.architecture != "topk":
        found = f"rescale_acts_by_decoder_norm with architecture {cfg.architecture}"
        raise SAELoadError("unknown_architecture", str(root / CONFIG_FILE), "decoder-norm rescaling of topk", found)
    return cfg.rescale_acts_by_decoder_norm


def _activation_scale(root: Path, cfg: _Config, hints: Hints) -> float:
    if cfg.normalize_activations != "expected_average_only_in":
        if hints.activation_scale is not None:
            expected = f"no activation_scale= with normalize_activations {cfg.normalize_activations}"
            raise SAELoadError("activation_scale_unused", str(root), expected, f"{hints.activation_scale}")
        return 1.0
    file = root / SCALER_FILE
    scaler = read_json(file, _Scaler) if file.is_file() else _Scaler(None)
    if scaler.has_whitening:
        raise SAELoadError("unknown_normalisation", str(file), "one factor", "a whitening matrix")
    scale = _agreed(root, "activation_scale", hints.activation_scale, scaler.scaling_factor)
    if scale is None or not (isfinite(scale) and scale > 0):
        expected = f"the positive factor √d_in / E‖x‖ in {SCALER_FILE} or activation_scale="
        raise SAELoadError("missing_activation_scale", str(root), expected, f"{scale}")
    return scale


def _agreed(root: Path, name: str, given: _N | None, stated: _N | None) -> _N | None:
    """What the caller gave or the files state; where both do, they must agree."""
    if given is None or stated is None:
        return stated if given is None else given
    if not isclose(given, stated, rel_tol=1e-6):
        raise SAELoadError(f"{name}_conflict", str(root), f"{name}={stated} as its files say", f"{name}={given}")
    return stated


def _tensors(root: Path) -> dict[str, LazyTensor]:
    tensors = open_safetensors(root / WEIGHTS_FILE)
    legacy = tensors.pop("scaling_factor", None)
    if legacy is not None and not bool((legacy.read() == torch.ones(())).all()):
        raise SAELoadError("unknown_tensor", str(root / WEIGHTS_FILE), "scaling_factor of ones", "other values")
    return tensors
