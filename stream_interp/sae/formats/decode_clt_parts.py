"""The files of decode-clt: tensors taken by name and shape, and the statistics that activations are normalised by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from msgspec import Struct

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Affine
from stream_interp.sae.files import parsed_json, read_small
from stream_interp.sae.tensors import LazyTensor

MAX_STATISTICS_BYTES = 64 << 20  # 100 layers of width 8,192 as text
_EPS = 1e-6  # added to every deviation in float32, as the tool does


class Stored:
    """The tensors of a file, each of which must be asked for, once or more."""

    def __init__(self, path: Path, tensors: Mapping[str, LazyTensor]) -> None:
        self.path, self._tensors = path, tensors
        self._taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        """The tensor of this name. Raises SAELoadError: none, or of another shape."""
        if name not in self._tensors:
            found = f"{sorted(self._tensors)[:20]}"
            raise SAELoadError("missing_tensor", str(self.path), f"{name} {list(shape)}", found)
        if self._tensors[name].shape != shape:
            found = str(list(self._tensors[name].shape))
            raise SAELoadError("wrong_shape", str(self.path), f"{name} {list(shape)} as its config says", found)
        self._taken.add(name)
        return self._tensors[name]

    def finite(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The same, read, in float64. Raises SAELoadError: an entry that is not finite, too."""
        values = self.take(name, shape).read().double()
        if not bool(values.isfinite().all()):
            raise SAELoadError("not_finite", str(self.path), f"finite numbers in {name}", "others")
        return values

    def require_all_taken(self) -> None:
        """Raises SAELoadError if the file has a tensor that nobody asked for."""
        left = sorted(self._tensors.keys() - self._taken)
        if left:
            raise SAELoadError("unknown_tensor", str(self.path), "only the tensors that its config tells of", left[0])


class Statistics(NamedTuple):
    """By what inputs and outputs are normalised, [layers, d_model] float32."""

    inputs: Affine
    targets: Affine


class _Moments(Struct, frozen=True):
    mean: list[float]
    std: list[float]


class _OfLayer(Struct, frozen=True):
    inputs: _Moments
    targets: _Moments


def read_statistics(path: Path, n_layers: int, d_model: int) -> Statistics:
    """`norm_stats.json`, which the tool writes beside the activations it trains on: it belongs beside the checkpoint.

    Raises:
        SAELoadError: missing, a layer or a number is, far more than these, or a deviation that is not positive.
    """
    data = read_small(path, MAX_STATISTICS_BYTES)
    if data.count(b",") + data.count(b":") > 2 * n_layers * (4 * d_model + 16):  # each takes 32 bytes
        raise SAELoadError("wrong_shape", str(path), f"statistics of {n_layers} layers {d_model} wide", "far more")
    layers = parsed_json(path, data, dict[str, _OfLayer])
    missing = [str(i) for i in range(n_layers) if str(i) not in layers]
    if missing:
        raise SAELoadError("missing_layer", str(path), f"statistics of layers 0 to {n_layers - 1}", f"no {missing[0]}")
    of_layers = [layers[str(i)] for i in range(n_layers)]
    return Statistics(
        _affine(path, [layer.inputs for layer in of_layers], d_model),
        _affine(path, [layer.targets for layer in of_layers], d_model),
    )


def _affine(path: Path, moments: list[_Moments], d_model: int) -> Affine:
    for of_layer in moments:
        if len(of_layer.mean) != d_model or len(of_layer.std) != d_model:
            found = f"{len(of_layer.mean)} and {len(of_layer.std)}"
            raise SAELoadError("wrong_shape", str(path), f"{d_model} means and deviations of a layer", found)
    mean = torch.tensor([of_layer.mean for of_layer in moments], dtype=torch.float64).float()
    std = torch.tensor([of_layer.std for of_layer in moments], dtype=torch.float64).float() + _EPS
    if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
        raise SAELoadError("not_finite", str(path), "finite means and positive deviations in float32", "others")
    return Affine(mean, std)
