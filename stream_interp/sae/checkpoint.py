"""A checkpoint as a family's reader hands it over: nothing folded, oriented `[d_in, d_sae]` and `[d_sae, d_out]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.tensors import LazyTensor


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` are named as in `shapes(config)`. `decoder_in_file`: W_dec is not loaded, its rows are read by need."""

    path: Path
    config: SAEConfig
    tensors: Mapping[str, LazyTensor]
    decoder_in_file: bool = False


class Write(NamedTuple):
    """Decoder of layer `source` into the layers `first_target` and on: `W` [d_sae, targets·d_out]."""

    source: int
    first_target: int
    W: LazyTensor


class Affine(NamedTuple):
    """z = (x - mean) / std, [layers, d] each."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class Across:
    """How a cross-layer transcoder writes: y_t = b_dec_t + Σ over s <= t of acts_s @ W_st + x_s @ S_st.

    `b_dec` [layers, d_out]; `skips` {(s, t): S [d_in, d_out]}. With `inputs` and `outputs` the x_s that S sees and the
    y_t that are summed are normalised activations.
    """

    writes: tuple[Write, ...]
    b_dec: torch.Tensor
    skips: Mapping[tuple[int, int], LazyTensor] = field(default_factory=dict)
    inputs: Affine | None = None
    outputs: Affine | None = None


@dataclass(frozen=True)
class LayeredCheckpoint:
    """An SAE for each layer, of one width; `across`: they write into each other's outputs.

    `write`: puts one that was read from pickles into a folder, as files that `load` reads.
    """

    path: Path
    layers: tuple[Checkpoint, ...]
    across: Across | None = None
    write: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Hints:
    """What the caller knows and the files may not say."""

    k: int | None = None
    activation_scale: float | None = None


@dataclass(frozen=True)
class Family:
    """One layout of checkpoints on disk.

    `detect` looks at file names only, `convertible` families are pickles: `convert` reads them, `load` never does.
    `read` parses and checks what the family alone knows; shapes, finiteness and memory are checked for all families
    in one place.
    """

    name: str
    detect: Callable[[Path], bool]
    read: Callable[[Path, Hints], Checkpoint | LayeredCheckpoint]
    convertible: bool = False


def shapes(config: SAEConfig) -> dict[str, tuple[int, ...]]:
    """The parameters that an SAE of this architecture has, with their shapes."""
    biases = ("b_gate", "b_mag", "r_mag") if config.architecture == "gated" else ("b_enc",)
    expected: dict[str, tuple[int, ...]] = {
        "W_enc": (config.d_in, config.d_sae),
        **dict.fromkeys(biases, (config.d_sae,)),
    }
    if config.reconstructs:
        expected |= {"W_dec": (config.d_sae, config.d_out), "b_dec": (config.d_out,)}
    if config.architecture == "jumprelu":
        expected["threshold"] = (config.d_sae,)
    if config.skip:
        expected["W_skip"] = (config.d_in, config.d_out)
    if config.normalisation == "mean_std":
        expected |= {"input_mean": (config.d_in,), "input_std": (config.d_in,)}
    return expected


def parameter_bytes(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """Of all parameters that are to be held in `dtype`, in canonical form."""
    config = checkpoint.config
    in_file = {"W_dec"} if checkpoint.decoder_in_file else set()
    matrices = sum(prod(shape) for name, shape in shapes(config).items() if len(shape) == 2 and name not in in_file)
    of_features = 4 if config.architecture == "gated" else 2  # b_enc and threshold; gain and offset
    b_dec = config.d_out if config.reconstructs else 0
    return (matrices + of_features * config.d_sae + b_dec) * dtype.itemsize


def check_shapes(checkpoint: Checkpoint) -> None:
    """Raises SAELoadError unless the tensors are exactly those of `shapes`, and k fits. Reads no tensor."""
    path, config = str(checkpoint.path), checkpoint.config
    expected = shapes(config)
    for name in expected.keys() - checkpoint.tensors.keys():
        raise SAELoadError("missing_tensor", path, f"{name} {list(expected[name])}", f"{sorted(checkpoint.tensors)}")
    for name in checkpoint.tensors.keys() - expected.keys():
        raise SAELoadError("unknown_tensor", path, f"only {sorted(expected)} for {config.architecture}", name)
    for name, shape in expected.items():
        found = checkpoint.tensors[name].shape
        if found != shape:
            raise SAELoadError("wrong_shape", path, f"{name} {list(shape)} as its config says", str(list(found)))
    if config.centred and config.d_in != config.d_out:
        raise SAELoadError(
            "wrong_shape", path, f"d_out = d_in = {config.d_in} where b_dec is subtracted", f"{config.d_out}"
        )
    if config.architecture in {"topk", "groupmax"} and (config.k is None or not 1 <= config.k <= config.d_sae):
        raise SAELoadError("wrong_k", path, f"1 <= k <= {config.d_sae}; give k= if the files lack it", f"{config.k}")
    if config.architecture == "groupmax" and config.d_sae % (config.k or 1):
        raise SAELoadError("wrong_k", path, f"k that divides {config.d_sae} into equal groups", f"{config.k}")


def require_finite(checkpoint: Checkpoint, name: str, block: torch.Tensor) -> None:
    """Raises SAELoadError if an entry is NaN or infinite."""
    if block.numel():
        low, high = (float(bound) for bound in torch.aminmax(block))  # both are NaN if one entry is
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise SAELoadError("not_finite", str(checkpoint.path), f"finite numbers in {name}", f"{low} to {high}")
