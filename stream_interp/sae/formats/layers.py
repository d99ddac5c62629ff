"""What families with an SAE for each layer share: numbered files, and layers that fit together."""

from __future__ import annotations

import re
from pathlib import Path

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Across, Checkpoint, LayeredCheckpoint, check_shapes


def numbered(root: Path, stem: str) -> list[Path]:
    """The files `stem0.safetensors`, `stem1.safetensors`, … in order, from 0 without a gap.

    Raises:
        SAELoadError: there is none, or one is missing.
    """
    pattern = re.compile(re.escape(stem) + r"(0|[1-9][0-9]{0,5})\.safetensors")
    found = {int(match[1]) for child in root.iterdir() if (match := pattern.fullmatch(child.name))}
    missing = next(i for i in range(len(found) + 1) if i not in found)
    if missing < len(found) or not found:
        what = f"{stem}{missing}.safetensors, and so on without a gap"
        raise SAELoadError("missing_layer", str(root), what, f"layers {sorted(found)[:50]}")
    return [root / f"{stem}{i}.safetensors" for i in range(len(found))]


def layered(root: Path, layers: list[Checkpoint], across: Across | None = None) -> LayeredCheckpoint:
    """The layers together.

    Raises:
        SAELoadError: a layer's tensors are not those of its config, or the layers differ in width or architecture.
    """
    for i, layer in enumerate(layers):
        check_shapes(layer)
        first, this = layers[0].config, layer.config
        expected = (first.d_in, first.d_sae, first.d_out, first.architecture, first.skip)
        found = (this.d_in, this.d_sae, this.d_out, this.architecture, this.skip)
        if found != expected:
            raise SAELoadError("unequal_layers", str(layer.path), f"layer {i} as layer 0: {expected}", f"{found}")
    return LayeredCheckpoint(root, tuple(layers), across)
