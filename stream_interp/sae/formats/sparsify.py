"""EleutherAI sparsify: `cfg.json` + `sae.safetensors`, in a folder named after the module it reads (`layers.10`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from msgspec import Meta, Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import Architecture, SAEConfig
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.hints import agreed, refuse_scale
from stream_interp.sae.tensors import LazyTensor, oriented, renamed

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae.safetensors"
_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec", "W_skip": "W_skip"}


class _Config(Struct, frozen=True):
    d_in: Annotated[int, Meta(ge=1)]
    k: int
    activation: str = "topk"  # files of before there was another lack it
    num_latents: Annotated[int, Meta(ge=0)] = 0  # 0: d_in · expansion_factor
    expansion_factor: Annotated[int, Meta(ge=1)] = 32
    skip_connection: bool = False
    transcode: bool = False
    signed: bool = False  # once: the k largest by magnitude, with their signs


def _detect(root: Path) -> bool:
    return (root / CONFIG_FILE).is_file() and (root / WEIGHTS_FILE).is_file()


def _read(root: Path, hints: Hints) -> Checkpoint:
    path = root / CONFIG_FILE
    cfg = read_json(path, _Config)
    if cfg.activation not in {"topk", "groupmax"} or cfg.signed:
        found = f"{cfg.activation!r}{', signed' if cfg.signed else ''}"
        raise SAELoadError("unknown_architecture", str(path), "activation topk or groupmax", found)
    refuse_scale(root, hints, "sparsify, which reads raw activations")
    config = SAEConfig(
        family=FAMILY.name,
        architecture=cast(Architecture, cfg.activation),
        d_in=cfg.d_in,
        d_sae=cfg.num_latents or cfg.d_in * cfg.expansion_factor,
        d_out=cfg.d_in,
        k=agreed(root, "k", hints.k, cfg.k),
        centred=not cfg.transcode,
        transcodes=cfg.transcode or cfg.skip_connection,
        skip=cfg.skip_connection,
        hf_hook_name=root.name,
    )
    return Checkpoint(root, config, _tensors(root / WEIGHTS_FILE, config))


FAMILY = Family("sparsify", _detect, _read)


def _tensors(path: Path, config: SAEConfig) -> dict[str, LazyTensor]:
    tensors = renamed(path, open_safetensors(path), _NAMES)
    if "W_enc" in tensors:
        tensors["W_enc"] = oriented(tensors["W_enc"], (config.d_in, config.d_sae), stored_transposed=True)
    if "W_dec" in tensors:
        tensors["W_dec"] = oriented(tensors["W_dec"], (config.d_sae, config.d_out), stored_transposed=False)
    if "W_skip" in tensors:
        tensors["W_skip"] = tensors["W_skip"].transposed  # used as x @ W_skip.T
    return tensors
