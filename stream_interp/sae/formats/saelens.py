"""SAELens 6.x: `cfg.json` + `sae_weights.safetensors`. BatchTopK saved for inference is `jumprelu` there."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import NamedTuple, cast

import torch
from msgspec import Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import Architecture, Normalisation, SAEConfig
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.hints import agreed, refuse_k, refuse_scale
from stream_interp.sae.formats.saelens_config import Config, read_config
from stream_interp.sae.tensors import LazyTensor, oriented

# Weights of sparsify and of decode-clt, beside a file of the same name.
_OTHERS = ("sae.safetensors", "model.safetensors", "clt_checkpoint_*.safetensors", "clt*.pt", "rank_*_model.pt")
CONFIG_FILE, WEIGHTS_FILE, SCALER_FILE = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"


class _Kind(NamedTuple):
    architecture: Architecture
    transcodes: bool = False
    skip: bool = False


_KINDS = {
    "standard": _Kind("standard"),
    "gated": _Kind("gated"),
    "jumprelu": _Kind("jumprelu"),
    "topk": _Kind("topk"),
    "transcoder": _Kind("standard", transcodes=True),
    "skip_transcoder": _Kind("standard", transcodes=True, skip=True),
    "jumprelu_transcoder": _Kind("jumprelu", transcodes=True),
    "jumprelu_skip_transcoder": _Kind("jumprelu", transcodes=True, skip=True),
}
_NORMALISATIONS = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")


class _Scaler(Struct, frozen=True):
    scaling_factor: float | None
    has_whitening: bool = False


def _detect(root: Path) -> bool:
    return (root / CONFIG_FILE).is_file() and not any(any(root.glob(name)) for name in _OTHERS)


def _read(root: Path, hints: Hints) -> Checkpoint:
    cfg = read_config(root / CONFIG_FILE)
    _require("unknown_architecture", root, tuple(_KINDS), cfg.architecture)
    _require("unknown_normalisation", root, _NORMALISATIONS, cfg.normalize_activations)
    _require("unknown_reshaping", root, ("none", "hook_z"), cfg.reshape_activations)  # [n, d_in] is hook_z flattened
    kind = _KINDS[cfg.architecture]
    config = SAEConfig(
        family=FAMILY.name,
        architecture=kind.architecture,
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        d_out=_d_out(root, cfg, kind),
        k=_k(root, cfg, hints),
        centred=cfg.apply_b_dec_to_input,
        normalisation=_normalisation(cfg, kind),
        activation_scale=_activation_scale(root, cfg, hints),
        transcodes=kind.transcodes,
        skip=kind.skip,
        rescaled_by_decoder_norm=_rescaled(root, cfg),
        model_name=cfg.metadata.model_name,
        hook_name=cfg.metadata.hook_name,
        hf_hook_name=cfg.metadata.hf_hook_name,
    )
    return Checkpoint(root, config, _tensors(root, config))


FAMILY = Family("saelens", _detect, _read)


def _require(reason: str, root: Path, known: tuple[str, ...], found: str) -> None:
    if found not in known:
        raise SAELoadError(reason, str(root / CONFIG_FILE), f"one of {list(known)}", repr(found))


def _d_out(root: Path, cfg: Config, kind: _Kind) -> int:
    if not kind.transcodes:
        return cfg.d_in
    if cfg.d_out is None or cfg.apply_b_dec_to_input:
        expected = f"d_out and apply_b_dec_to_input: false with architecture {cfg.architecture}"
        raise SAELoadError("bad_config", str(root / CONFIG_FILE), expected, f"{cfg.d_out}, {cfg.apply_b_dec_to_input}")
    return cfg.d_out


def _normalisation(cfg: Config, kind: _Kind) -> Normalisation:
    """SAELens puts a transcoder's output back into no units: it is of another hook than the input."""
    one_way = kind.transcodes and cfg.normalize_activations in {"constant_norm_rescale", "layer_norm"}
    return cast(Normalisation, cfg.normalize_activations + "_in" * one_way)


def _k(root: Path, cfg: Config, hints: Hints) -> int | None:
    if cfg.architecture == "topk":
        return agreed(root, "k", hints.k, cfg.k)
    refuse_k(root, hints, cfg.architecture)
    return None


def _rescaled(root: Path, cfg: Config) -> bool:
    if cfg.rescale_acts_by_decoder_norm and cfg.architecture != "topk":
        found = f"rescale_acts_by_decoder_norm with architecture {cfg.architecture}"
        raise SAELoadError("unknown_architecture", str(root / CONFIG_FILE), "decoder-norm rescaling of topk", found)
    return cfg.rescale_acts_by_decoder_norm


def _activation_scale(root: Path, cfg: Config, hints: Hints) -> float:
    if cfg.normalize_activations != "expected_average_only_in":
        refuse_scale(root, hints, f"normalize_activations {cfg.normalize_activations}")
        return 1.0
    file = root / SCALER_FILE
    scaler = read_json(file, _Scaler) if file.is_file() else _Scaler(None)
    if scaler.has_whitening:
        raise SAELoadError("unknown_normalisation", str(file), "one factor", "a whitening matrix")
    scale = agreed(root, "activation_scale", hints.activation_scale, scaler.scaling_factor)
    if scale is None or not (isfinite(scale) and scale > 0):
        expected = f"the positive factor √d_in / E‖x‖ in {SCALER_FILE} or activation_scale="
        raise SAELoadError("missing_activation_scale", str(root), expected, f"{scale}")
    return scale


def _tensors(root: Path, config: SAEConfig) -> dict[str, LazyTensor]:
    tensors = open_safetensors(root / WEIGHTS_FILE)
    legacy = tensors.pop("scaling_factor", None)
    if legacy is not None:
        if legacy.shape != (config.d_sae,):
            expected = f"scaling_factor [{config.d_sae}]"
            raise SAELoadError("wrong_shape", str(root / WEIGHTS_FILE), expected, str(list(legacy.shape)))
        if not bool((legacy.read() == torch.ones(())).all()):
            raise SAELoadError("unknown_tensor", str(root / WEIGHTS_FILE), "scaling_factor of ones", "other values")
    for name, shape in (("W_enc", (config.d_in, config.d_sae)), ("W_dec", (config.d_sae, config.d_out))):
        if name in tensors:
            tensors[name] = oriented(tensors[name], shape, stored_transposed=False)
    if "W_skip" in tensors and len(tensors["W_skip"].shape) == 2:
        tensors["W_skip"] = tensors["W_skip"].transposed  # stored [d_out, d_in]
    return tensors
