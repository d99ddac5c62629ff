"""Gemma Scope 2: `params.safetensors` with lower-case names and, mostly, a `config.json`. JumpReLU, not centred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import Struct, structs

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.files import open_safetensors, read_json
from stream_interp.sae.formats.bare import jumprelu_of

CONFIG_FILE, WEIGHTS_FILE = "config.json", "params.safetensors"
NAMES = {
    "w_enc": "W_enc", "b_enc": "b_enc", "w_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold",
    "affine_skip_connection": "W_skip",  # [d_in, d_out], used as x @ W_skip
}  # fmt: skip


class _Config(Struct, frozen=True):
    architecture: str
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None
    affine_connection: bool | None = None


def _detect(root: Path) -> bool:
    return (root / WEIGHTS_FILE).is_file()


def _read(root: Path, hints: Hints) -> Checkpoint:
    path = root / WEIGHTS_FILE
    checkpoint = jumprelu_of(root, path, FAMILY.name, open_safetensors(path), NAMES, hints)
    if not (root / CONFIG_FILE).is_file():
        return checkpoint
    cfg = read_json(root / CONFIG_FILE, _Config)
    if cfg.architecture != "jump_relu":
        raise SAELoadError("unknown_architecture", str(root / CONFIG_FILE), "jump_relu", repr(cfg.architecture))
    if cfg.affine_connection is not None and cfg.affine_connection != checkpoint.config.skip:
        expected = f"affine_skip_connection in {WEIGHTS_FILE} where, and only where, affine_connection says so"
        raise SAELoadError("missing_tensor", str(root), expected, f"affine_connection: {cfg.affine_connection}")
    config = structs.replace(
        checkpoint.config,
        transcodes=checkpoint.config.transcodes or cfg.hf_hook_point_out not in {None, cfg.hf_hook_point_in},
        model_name=cfg.model_name,
        hf_hook_name=cfg.hf_hook_point_in,
    )
    return replace(checkpoint, config=config)


FAMILY = Family("gemma_scope_2", _detect, _read)
