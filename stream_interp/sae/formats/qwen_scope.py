"""Qwen Scope: one `layerN.sae.pt`. TopK on raw activations, not centred; k is in its repository's name alone."""

from __future__ import annotations

from pathlib import Path

from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.formats.bare import sizes_of, turned
from stream_interp.sae.formats.hints import refuse_scale
from stream_interp.sae.pickles import open_pickle, tensors_of
from stream_interp.sae.tensors import renamed

_NAMES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


def _detect(root: Path) -> bool:
    return root.is_file() and root.name.endswith(".sae.pt")


def _read(root: Path, hints: Hints) -> Checkpoint:
    refuse_scale(root, hints, "Qwen Scope, which reads raw activations")
    tensors = renamed(root, tensors_of(root, open_pickle(root)), _NAMES)
    sizes = sizes_of(root, tensors)
    config = SAEConfig(family=FAMILY.name, architecture="topk", **sizes._asdict(), k=hints.k, centred=False)
    return Checkpoint(root, config, turned(tensors, sizes, W_enc_transposed=True, W_dec_transposed=True))


FAMILY = Family("qwen_scope", _detect, _read, convertible=True)
