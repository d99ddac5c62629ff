"""Gemma Scope 1: one `params.npz`, no config. JumpReLU on raw activations, not centred."""

from __future__ import annotations

from pathlib import Path

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Family, Hints
from stream_interp.sae.formats.bare import jumprelu_of
from stream_interp.sae.npz import open_npz

WEIGHTS_FILE = "params.npz"
_NAMES = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
_LOWER_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}


def _detect(root: Path) -> bool:
    return (root / WEIGHTS_FILE).is_file()


def _read(root: Path, hints: Hints) -> Checkpoint:
    if "embedding" in root.absolute().parts[-3:]:  # embedding/width_4k/average_l0_6
        # Their W_enc and W_dec are for embeddings times √d_model: read as they are, every feature would be wrong.
        expected = "an SAE of a layer; those of embeddings are stored for rescaled inputs"
        raise SAELoadError("unknown_normalisation", str(root), expected, "an SAE of the embedding")
    path = root / WEIGHTS_FILE
    return jumprelu_of(root, path, FAMILY.name, open_npz(path), _NAMES | _LOWER_NAMES, hints)


FAMILY = Family("gemma_scope_1", _detect, _read)
