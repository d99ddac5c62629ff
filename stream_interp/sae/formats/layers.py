"""What families with an SAE for each layer share: numbered files, and layers that fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Across, Checkpoint, LayeredCheckpoint, Write, check_shapes, require_finite
from stream_interp.sae.tensors import LazyTensor

MAX_LAYERS = 512


class CrossLayer(NamedTuple):
    """One layer of a cross-layer transcoder: its encoder, and what it adds to the outputs of its and later layers.

    `b_dec` [d_out] and `skip` [d_in, d_out], used as x @ skip, are of its own output; `W_dec` [d_sae, targets·d_out].
    """

    encoder: Checkpoint
    b_dec: LazyTensor
    W_dec: LazyTensor
    skip: LazyTensor | None


def numbered(root: Path, stem: str) -> list[Path]:
    """The files `stem0.safetensors`, `stem1.safetensors`, … in order, from 0 without a gap.

    Raises:
        SAELoadError: there is none, one is missing, one is numbered otherwise, or there are too many.
    """
    pattern = re.compile(re.escape(stem) + r"(0|[1-9][0-9]{0,5})\.safetensors")
    names = [child.name for child in root.iterdir() if child.name.startswith(stem) and ".safetensors" in child.name]
    found = {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
    if len(found) > MAX_LAYERS:
        raise SAELoadError("too_many_layers", str(root), f"at most {MAX_LAYERS} layers", f"{len(found)}")
    if len(found) < len(names):  # such as the last layer, half downloaded: without it the set would seem whole
        others = [name for name in names if not pattern.fullmatch(name)]
        raise SAELoadError("unknown_layer", str(root), f"{stem}0.safetensors, and so on", f"{others[:20]}")
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


def cross_layer(root: Path, layers: list[CrossLayer]) -> LayeredCheckpoint:
    """A cross-layer transcoder with one decoder and one bias for each layer.

    Raises:
        SAELoadError: as `layered`; a bias that is not finite; a skip of another shape, or in some layers alone.
    """
    together = layered(root, [layer.encoder for layer in layers])
    skips, biases = {}, []
    for i, (encoder, b_dec, _, skip) in enumerate(layers):
        biases.append(b_dec.read())
        require_finite(encoder, "b_dec", biases[-1])
        if skip is not None:
            skips[i, i] = of_shape(encoder.path, "W_skip", skip, (encoder.config.d_in, encoder.config.d_out))
    if skips and len(skips) < len(layers):
        raise SAELoadError("missing_tensor", str(root), "a skip in every layer or in none", f"{sorted(skips)[:50]}")
    writes = tuple(Write(i, i, layer.W_dec) for i, layer in enumerate(layers))
    return LayeredCheckpoint(root, together.layers, Across(writes, torch.stack(biases).double(), skips))


def of_shape(path: Path, name: str, tensor: LazyTensor | None, shape: tuple[int, ...]) -> LazyTensor:
    """The tensor. Raises SAELoadError: none, or of another shape."""
    if tensor is None or tensor.shape != shape:
        reason, found = ("missing_tensor", "none") if tensor is None else ("wrong_shape", str(list(tensor.shape)))
        raise SAELoadError(reason, str(path), f"{name} {list(shape)}", found)
    return tensor


def has_negative(threshold: LazyTensor | None, d_sae: int) -> bool:
    """Whether a JumpReLU without a ReLU differs from one with it; False where `check_shapes` will refuse."""
    return threshold is not None and threshold.shape == (d_sae,) and bool((threshold.read() < 0).any())
