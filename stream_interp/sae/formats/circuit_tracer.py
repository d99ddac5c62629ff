"""circuit-tracer: `config.yaml` with files for each layer; a set of transcoders, or a cross-layer transcoder.

Its JumpReLU has no ReLU: acts = p where p > threshold, also where both are negative. Square matrices: `W_enc` is
stored [d_sae, d_in]; the skip of a transcoder is used as x @ W_skip.T, that of a cross-layer transcoder as x @ W_skip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints, LayeredCheckpoint
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.files import open_safetensors, read_yaml
from stream_interp.sae.formats.bare import sizes_of, turned
from stream_interp.sae.formats.hints import refuse_k, refuse_scale
from stream_interp.sae.formats.layers import CrossLayer, cross_layer, has_negative, layered, numbered, of_shape
from stream_interp.sae.tensors import LazyTensor, renamed

CONFIG_FILE = "config.yaml"
_NAMES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip")}


class _Config(Struct, frozen=True):
    model_kind: str
    model_name: str | None = None
    feature_input_hook: str | None = None
    transcoders: list[str] | None = None


def _detect(root: Path) -> bool:
    return (root / CONFIG_FILE).is_file() and any(
        any(root.glob(f"{stem}*.safetensors")) for stem in ("layer_", "W_enc_", "W_dec_")
    )


def _read(root: Path, hints: Hints) -> LayeredCheckpoint:
    path = root / CONFIG_FILE
    cfg = read_yaml(path, _Config)
    refuse_k(root, hints, "of circuit-tracer")
    refuse_scale(root, hints, "circuit-tracer, which reads raw activations")
    if cfg.transcoders is not None:
        expected = "layer_0.safetensors and so on beside it, as circuit-tracer's cache has them, and no list of files"
        raise SAELoadError("files_elsewhere", str(path), expected, f"transcoders: {cfg.transcoders[:2]} …")
    if cfg.model_kind == "transcoder_set":
        files = numbered(root, "layer_")
        return layered(root, [_transcoder(file, i, cfg) for i, file in enumerate(files)])
    if cfg.model_kind == "cross_layer_transcoder":
        return _cross_layer(root, cfg)
    expected = "model_kind transcoder_set or cross_layer_transcoder"
    raise SAELoadError("unknown_architecture", str(path), expected, repr(cfg.model_kind[:80]))


FAMILY = Family("circuit_tracer", _detect, _read)


def _transcoder(path: Path, layer: int, cfg: _Config) -> Checkpoint:
    tensors = renamed(path, open_safetensors(path), _NAMES | {"activation_function.threshold": "threshold"})
    sizes = sizes_of(path, tensors)
    tensors = turned(tensors, sizes, W_enc_transposed=True, W_dec_transposed=False)
    if "W_skip" in tensors:
        tensors["W_skip"] = tensors["W_skip"].transposed
    config = _config(layer, cfg, tensors, **sizes._asdict())
    return Checkpoint(path, config, tensors, decoder_in_file=True)


def _cross_layer(root: Path, cfg: _Config) -> LayeredCheckpoint:
    encoder_files, decoder_files = numbered(root, "W_enc_"), numbered(root, "W_dec_")
    if len(decoder_files) != len(encoder_files):
        found = f"{len(encoder_files)} encoders, {len(decoder_files)} decoders"
        raise SAELoadError("missing_layer", str(root), "a W_enc_i and a W_dec_i of each layer", found)
    files = enumerate(zip(encoder_files, decoder_files, strict=True))
    return cross_layer(root, [_layer(i, encoder, decoder, len(encoder_files), cfg) for i, (encoder, decoder) in files])


def _layer(i: int, encoder_file: Path, decoder_file: Path, n_layers: int, cfg: _Config) -> CrossLayer:
    """Its decoder [d_sae, n_layers - i, d_out] writes into the layers i, i + 1, … along the second axis."""
    names = {f"{name}_{i}": name for name in ("W_enc", "b_enc", "b_dec", "W_skip", "threshold")}
    tensors = renamed(encoder_file, open_safetensors(encoder_file), names)
    sizes = sizes_of(encoder_file, tensors)
    b_dec, skip = tensors.pop("b_dec"), tensors.pop("W_skip", None)
    tensors = turned(tensors, sizes, W_enc_transposed=True, W_dec_transposed=False)
    config = _config(i, cfg, tensors, **sizes._asdict(), reconstructs=False)
    stored = renamed(decoder_file, open_safetensors(decoder_file), {f"W_dec_{i}": "W_dec"})
    W_dec = of_shape(decoder_file, f"W_dec_{i}", stored.get("W_dec"), (sizes.d_sae, n_layers - i, sizes.d_out))
    return CrossLayer(Checkpoint(encoder_file, config, tensors), b_dec, W_dec.flattened, skip)


def _config(
    layer: int,
    cfg: _Config,
    tensors: Mapping[str, LazyTensor],
    *,
    d_in: int,
    d_sae: int,
    d_out: int,
    reconstructs: bool = True,
) -> SAEConfig:
    threshold = tensors.get("threshold")
    return SAEConfig(
        family=FAMILY.name,
        architecture="standard" if threshold is None else "jumprelu",
        d_in=d_in,
        d_sae=d_sae,
        d_out=d_out,
        centred=False,
        transcodes=True,
        skip="W_skip" in tensors,
        signed=has_negative(threshold, d_sae),
        reconstructs=reconstructs,
        model_name=cfg.model_name,
        hook_name=f"blocks.{layer}.{cfg.feature_input_hook}" if cfg.feature_input_hook else None,
    )
