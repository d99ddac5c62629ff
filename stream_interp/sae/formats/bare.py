"""Layouts whose files state no sizes: d_sae is the length of b_enc, d_out that of b_dec, d_in what is left of W_enc."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Checkpoint, Hints
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.formats.hints import refuse_k, refuse_scale
from stream_interp.sae.tensors import LazyTensor, oriented, renamed


class Sizes(NamedTuple):
    """Widths of the input, of the features and of the output."""

    d_in: int
    d_sae: int
    d_out: int


def sizes_of(path: Path, tensors: Mapping[str, LazyTensor], bias: str = "b_enc") -> Sizes:
    """What the tensors' shapes say. `bias`: the name of one that has an entry for each feature.

    Raises:
        SAELoadError: a tensor is missing, or W_enc has no side of length d_sae.
    """
    for name, rank in ((bias, 1), ("b_dec", 1), ("W_enc", 2)):
        if name not in tensors:
            raise SAELoadError("missing_tensor", str(path), name, f"{sorted(tensors)}")
        if len(tensors[name].shape) != rank:
            raise SAELoadError("wrong_shape", str(path), f"{name} with {rank} axes", str(list(tensors[name].shape)))
    d_sae, d_out = tensors[bias].shape[0], tensors["b_dec"].shape[0]
    sides = list(tensors["W_enc"].shape)
    if d_sae not in sides or 0 in (*sides, d_out):
        raise SAELoadError("wrong_shape", str(path), f"W_enc with a side of {d_sae}, the length of {bias}", f"{sides}")
    sides.remove(d_sae)
    return Sizes(sides[0], d_sae, d_out)


def turned(
    tensors: Mapping[str, LazyTensor], sizes: Sizes, *, W_enc_transposed: bool, W_dec_transposed: bool
) -> dict[str, LazyTensor]:
    """`W_enc` as [d_in, d_sae], `W_dec` as [d_sae, d_out]; the flags say how square ones are stored."""
    turned = dict(tensors)
    turned["W_enc"] = oriented(tensors["W_enc"], (sizes.d_in, sizes.d_sae), stored_transposed=W_enc_transposed)
    if "W_dec" in tensors:
        turned["W_dec"] = oriented(tensors["W_dec"], (sizes.d_sae, sizes.d_out), stored_transposed=W_dec_transposed)
    return turned


def jumprelu_of(
    root: Path, path: Path, family: str, stored: Mapping[str, LazyTensor], names: Mapping[str, str], hints: Hints
) -> Checkpoint:
    """A JumpReLU SAE or transcoder on raw activations, not centred, stored as [d_in, d_sae] and [d_sae, d_out]."""
    refuse_k(root, hints, "jumprelu")
    refuse_scale(root, hints, f"{family}, which reads raw activations")
    tensors = renamed(path, stored, names)
    sizes = sizes_of(path, tensors)
    config = SAEConfig(
        family=family,
        architecture="jumprelu",
        **sizes._asdict(),
        centred=False,
        transcodes="W_skip" in tensors or sizes.d_in != sizes.d_out,
        skip="W_skip" in tensors,
    )
    return Checkpoint(root, config, turned(tensors, sizes, W_enc_transposed=False, W_dec_transposed=False))
