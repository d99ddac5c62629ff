"""Gemma Scope 2's cross-layer transcoders: `layer_0.safetensors` and so on, with lower-case names.

JumpReLU, not centred; a negative threshold is read as by circuit-tracer, the tool that loads these files. A decoder has
room for every layer; what it holds for layers before its own is never used.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints, LayeredCheckpoint
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.bare import sizes_of, turned
from stream_interp.sae.formats.gemma_scope_2 import CONFIG_FILE, NAMES
from stream_interp.sae.formats.hints import refuse_k, refuse_scale
from stream_interp.sae.formats.layers import CrossLayer, cross_layer, has_negative, numbered, of_shape
from stream_interp.sae.tensors import renamed


class _Config(Struct, frozen=True):
    architecture: str = "jump_relu"
    model_name: str | None = None


def _detect(root: Path) -> bool:
    return (root / "layer_0.safetensors").is_file() and not (
        root / "config.yaml"
    ).is_file()  # those are circuit-tracer's


def _read(root: Path, hints: Hints) -> LayeredCheckpoint:
    refuse_k(root, hints, "jumprelu")
    refuse_scale(root, hints, "gemma_scope_2_clt, which reads raw activations")
    cfg = read_json(root / CONFIG_FILE, _Config) if (root / CONFIG_FILE).is_file() else _Config()
    if cfg.architecture != "jump_relu":
        found = repr(cfg.architecture[:80])
        raise SAELoadError("unknown_architecture", str(root / CONFIG_FILE), "jump_relu", found)
    files = numbered(root, "layer_")
    return cross_layer(root, [_layer(file, i, len(files), cfg.model_name) for i, file in enumerate(files)])


FAMILY = Family("gemma_scope_2_clt", _detect, _read)


def _layer(path: Path, layer: int, n_layers: int, model_name: str | None) -> CrossLayer:
    tensors = renamed(path, open_safetensors(path), NAMES)
    sizes = sizes_of(path, tensors)
    b_dec, skip, W_dec = tensors.pop("b_dec"), tensors.pop("W_skip", None), tensors.pop("W_dec", None)
    W_dec = of_shape(path, "w_dec", W_dec, (sizes.d_sae, n_layers, sizes.d_out))
    config = SAEConfig(
        family=FAMILY.name,
        architecture="jumprelu",
        **sizes._asdict(),
        centred=False,
        transcodes=True,
        signed=has_negative(tensors.get("threshold"), sizes.d_sae),
        reconstructs=False,
        model_name=model_name,
    )
    encoder = Checkpoint(path, config, turned(tensors, sizes, W_enc_transposed=False, W_dec_transposed=False))
    return CrossLayer(encoder, b_dec, W_dec.flattened.columns_from(layer * sizes.d_out), skip)
