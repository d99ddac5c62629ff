"""A checkpoint as a family's reader hands it over: nothing folded, oriented `[d_in, d_sae]` and `[d_sae, d_out]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.tensors import LazyTensor


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` are named as in `shapes(config)`."""

    path: Path
    config: SAEConfig
    tensors: Mapping[str, LazyTensor]


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
    read: Callable[[Path, Hints], Checkpoint]
    convertible: bool = False


def shapes(config: SAEConfig) -> dict[str, tuple[int, ...]]:
    """The parameters that an SAE of this architecture has, with their shapes."""
    biases = ("b_gate", "b_mag", "r_mag") if config.architecture == "gated" else ("b_enc",)
    expected: dict[str, tuple[int, ...]] = {
        "W_enc": (config.d_in, config.d_sae),
        **dict.fromkeys(biases, (config.d_sae,)),
        "W_dec": (config.d_sae, config.d_out),
        "b_dec": (config.d_out,),
    }
    if config.architecture == "jumprelu":
        expected["threshold"] = (config.d_sae,)
    if config.skip:
        expected["W_skip"] = (config.d_in, config.d_out)
    return expected


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
