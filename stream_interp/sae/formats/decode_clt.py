"""decode-clt: `cfg.json` + `clt_checkpoint_latest.safetensors`, or `cfg.json` + `step_N/model.safetensors`.

A cross-layer transcoder. `norm_stats.json`, where its activations were normalised by it, belongs beside `cfg.json`.

Torch's linear layers, [out, in] each; biases are called `bias_param`, and those of all decoders into a layer add up. A
feature fires where p >= exp(log_threshold). BatchTopK and TopK select with means and deviations of the batch at hand
(the acts of a token depend on the other tokens): read once its `convert_to_jumprelu_inplace` has given it thresholds.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Annotated, Literal

import torch
from msgspec import Meta, Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Across, Affine, Checkpoint, Family, Hints, LayeredCheckpoint, Write
from stream_interp.sae.config import Normalisation, SAEConfig
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.decode_clt_parts import Statistics, Stored, read_statistics
from stream_interp.sae.formats.hints import refuse_k, refuse_scale
from stream_interp.sae.formats.layers import MAX_LAYERS, layered
from stream_interp.sae.tensors import LazyTensor

CONFIG_FILE, STATISTICS_FILE = "cfg.json", "norm_stats.json"
CHECKPOINTS, LATEST, MERGED = "clt_checkpoint_*.safetensors", "clt_checkpoint_latest.safetensors", "model.safetensors"
_MEAN_STD = {"mean_std", "auto", "estimated_mean_std"}
_SQRT_D = {"sqrt_d_model", "auto_sqrt_d_model", "estimated_mean_std_sqrt_d_model"}
_Width = Annotated[int, Meta(ge=1)]


class Config(Struct, frozen=True):
    """The fields of `cfg.json` that change what is computed."""

    num_features: _Width
    num_layers: Annotated[int, Meta(ge=1, le=MAX_LAYERS)]
    d_model: _Width
    activation_fn: str = "jumprelu"
    normalization_method: str = "none"
    sqrt_d_model_normalize: bool = False  # of old releases
    decoder_tying: Literal["none", "per_source", "per_target"] = "none"
    enable_feature_offset: bool = False
    enable_feature_scale: bool = False
    skip_connection: bool = False
    model_name: str | None = None
    tl_input_template: str | None = None
    mlp_input_template: str | None = None

    @property
    def normalisation(self) -> Literal["none", "mean_std", "sqrt_d_model"] | None:
        """None: an unknown one."""
        if self.sqrt_d_model_normalize or self.normalization_method in _SQRT_D:
            return "sqrt_d_model"
        if self.normalization_method in _MEAN_STD:
            return "mean_std"
        return "none" if self.normalization_method == "none" else None


def _detect(root: Path) -> bool:
    if not (root / MERGED).is_file() and not any(root.glob(CHECKPOINTS)):
        return False
    return (_home(root) / CONFIG_FILE).is_file()


def _home(root: Path) -> Path:
    """Where `cfg.json` is: the folder itself or, of one that a run on several devices wrote, the one above."""
    return root if (root / CONFIG_FILE).is_file() or not (root / MERGED).is_file() else root.absolute().parent


def _read(root: Path, hints: Hints) -> LayeredCheckpoint:
    home = _home(root)
    cfg, weights = read_config(home, hints), _weights(root)
    return assembled(root, home, cfg, Stored(weights, open_safetensors(weights)))


def read_config(home: Path, hints: Hints) -> Config:
    """What `cfg.json` says. Raises SAELoadError: what is not read, or a hint that would be ignored."""
    cfg = read_json(home / CONFIG_FILE, Config)
    _require_what_is_read(home / CONFIG_FILE, cfg)
    refuse_k(home, hints, cfg.activation_fn)
    refuse_scale(home, hints, "decode-clt, whose normalisation is in its files")
    return cfg


def assembled(root: Path, home: Path, cfg: Config, stored: Stored) -> LayeredCheckpoint:
    """The set of what is stored. Raises SAELoadError: a tensor is missing, unknown or of another shape; `home` lacks
    the statistics that the config asks for.
    """
    statistics = None
    for i in range(cfg.num_layers):  # first: how large the statistics may be is of sizes that the weights have, too
        stored.take(f"encoder_module.encoders.{i}.weight", (cfg.num_features, cfg.d_model))
    if cfg.normalisation == "mean_std":
        statistics = read_statistics(home / STATISTICS_FILE, cfg.num_layers, cfg.d_model)
    layers = [_encoder(stored, cfg, i, statistics) for i in range(cfg.num_layers)]
    across = _across(stored, cfg, statistics)
    stored.require_all_taken()
    return layered(root, layers, across)


FAMILY = Family("decode_clt", _detect, _read)


def _require_what_is_read(path: Path, cfg: Config) -> None:
    if cfg.activation_fn not in {"relu", "jumprelu"}:
        expected = "activation_fn relu or jumprelu; the tool's convert_to_jumprelu_inplace makes one of a batchtopk"
        raise SAELoadError("unknown_architecture", str(path), expected, repr(cfg.activation_fn[:80]))
    if cfg.enable_feature_offset or cfg.enable_feature_scale:
        expected = "no enable_feature_offset and enable_feature_scale"
        raise SAELoadError("unknown_architecture", str(path), expected, "one that is true")
    if cfg.normalisation is None:
        expected = "normalization_method none, mean_std or sqrt_d_model"
        raise SAELoadError("unknown_normalisation", str(path), expected, repr(cfg.normalization_method[:80]))


def _weights(root: Path) -> Path:
    """The tool saves every checkpoint twice: under its step, and as the latest."""
    found = sorted(path.name for path in (*root.glob(CHECKPOINTS), root / MERGED) if path.is_file())
    if LATEST in found and MERGED not in found:
        return root / LATEST
    if len(found) != 1:
        reason, told = ("several_saes", ", ".join(found[:50])) if found else ("missing_file", "no regular file")
        raise SAELoadError(reason, str(root), f"{LATEST}, or one checkpoint alone", told)
    return root / found[0]


def _encoder(stored: Stored, cfg: Config, layer: int, statistics: Statistics | None) -> Checkpoint:
    encoder = f"encoder_module.encoders.{layer}"
    tensors = {
        "W_enc": stored.take(f"{encoder}.weight", (cfg.num_features, cfg.d_model)).transposed,
        "b_enc": stored.take(f"{encoder}.bias_param", (cfg.num_features,)),
    }
    if cfg.activation_fn == "jumprelu":
        log_threshold = stored.take("theta_manager.log_threshold", (cfg.num_layers, cfg.num_features)).row(layer)
        dtype = torch.promote_types(log_threshold.dtype, torch.float32)
        tensors["threshold"] = LazyTensor.made(log_threshold.shape, dtype, lambda: log_threshold.read().to(dtype).exp())
    if statistics is not None:
        mean, std = statistics.inputs.mean[layer], statistics.inputs.std[layer]
        tensors["input_mean"] = LazyTensor.made(tuple(mean.shape), mean.dtype, lambda: mean)
        tensors["input_std"] = LazyTensor.made(tuple(std.shape), std.dtype, lambda: std)
    return Checkpoint(stored.path, _config(cfg, layer), tensors)


def _config(cfg: Config, layer: int) -> SAEConfig:
    jumps = cfg.activation_fn == "jumprelu"
    normalisations: dict[str | None, Normalisation] = {
        "mean_std": "mean_std",
        "sqrt_d_model": "expected_average_only_in",
    }
    return SAEConfig(
        family=FAMILY.name,
        architecture="jumprelu" if jumps else "standard",
        d_in=cfg.d_model,
        d_sae=cfg.num_features,
        d_out=cfg.d_model,
        centred=False,
        normalisation=normalisations.get(cfg.normalisation, "none"),
        activation_scale=sqrt(cfg.d_model) if cfg.normalisation == "sqrt_d_model" else 1.0,
        transcodes=True,
        inclusive=jumps,
        reconstructs=False,
        model_name=cfg.model_name,
        hook_name=_of_layer(cfg.tl_input_template, layer),
        hf_hook_name=_of_layer(cfg.mlp_input_template, layer),
    )


def _of_layer(template: str | None, layer: int) -> str | None:
    return None if template is None else template.replace("{}", str(layer))


def _across(stored: Stored, cfg: Config, statistics: Statistics | None) -> Across:
    pairs = [(s, t) for t in range(cfg.num_layers) for s in range(t + 1)]
    name = {"none": "{s}->{t}", "per_source": "{s}", "per_target": "{t}"}[cfg.decoder_tying]
    writes, b_dec = [], torch.zeros(cfg.num_layers, cfg.d_model, dtype=torch.float64)
    for s, t in pairs:
        decoder = "decoder_module.decoders." + name.format(s=s, t=t)
        W = stored.take(f"{decoder}.weight", (cfg.d_model, cfg.num_features)).transposed
        writes.append(Write(s, t, W))
        if cfg.decoder_tying != "per_target" or s == t:  # there one decoder reads the sum of all sources
            b_dec[t] += stored.finite(f"{decoder}.bias_param", (cfg.d_model,))
    skips = {}
    if cfg.skip_connection:
        for s, t in pairs if cfg.decoder_tying == "none" else [(t, t) for t in range(cfg.num_layers)]:
            skip = "decoder_module.skip_weights." + (f"{s}->{t}" if cfg.decoder_tying == "none" else f"{t}")
            skips[s, t] = stored.take(skip, (cfg.d_model, cfg.d_model)).transposed  # used as x @ W_skip.T
    if cfg.normalisation == "sqrt_d_model":
        scaled = Affine(torch.zeros_like(b_dec), torch.full_like(b_dec, 1 / sqrt(cfg.d_model)))
        return Across(tuple(writes), b_dec, skips, scaled, scaled)
    if statistics is not None:
        return Across(tuple(writes), b_dec, skips, statistics.inputs, statistics.targets)
    return Across(tuple(writes), b_dec, skips)
