"""A checkpoint as a family's reader hands it over: nothing folded, oriented `[d_in, d_sae]` and `[d_sae, d_out]`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import msgspec
import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.config import SAEConfig

Parameters = dict[str, torch.Tensor]

_FINGERPRINTED_FIELDS = (
    "architecture", "k", "centred", "normalisation", "activation_scale", "rescaled_by_decoder_norm",
)  # fmt: skip
_CHUNK_ELEMENTS = 1 << 22  # bounds the temporaries of work in float64


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of known shape and dtype that is not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in the file, and in memory as stored."""
        return prod(self.shape) * self.dtype.itemsize

    def mapped(self, shape: tuple[int, ...], change: Callable[[torch.Tensor], torch.Tensor]) -> LazyTensor:
        """The same tensor, `change`d to `shape` once it is read."""
        return LazyTensor(shape, self.dtype, lambda: change(self.read()))

    @property
    def transposed(self) -> LazyTensor:
        """[m, n] stored as [n, m]."""
        return self.mapped(self.shape[::-1], torch.t)


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


def oriented(tensor: LazyTensor, shape: tuple[int, ...], *, stored_transposed: bool) -> LazyTensor:
    """A matrix as [rows, columns] = `shape`: told by its own shape, by the family's convention where it is square.

    One that fits neither way comes back as it is, for `check_shapes` to refuse.
    """
    square = len(set(shape)) == 1
    transposed = stored_transposed if square else tensor.shape == shape[::-1]
    return tensor.transposed if transposed and tensor.shape == shape[::-1] else tensor


def renamed(path: Path, stored: Mapping[str, LazyTensor], names: Mapping[str, str]) -> dict[str, LazyTensor]:
    """The tensors by our names. Raises SAELoadError if there is one that `names` does not tell of."""
    for name in stored.keys() - names.keys():
        raise SAELoadError("unknown_tensor", str(path), f"only {sorted(names)}", name)
    return {names[name]: tensor for name, tensor in stored.items()}


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


def read_parameters(checkpoint: Checkpoint) -> Parameters:
    """All tensors on the CPU, as stored. Raises SAELoadError if one has a NaN or infinite entry."""
    parameters: Parameters = {}
    for name in shapes(checkpoint.config):
        tensor = checkpoint.tensors[name].read()
        low, high = (float(bound) for bound in torch.aminmax(tensor))  # both are NaN if one entry is
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise SAELoadError("not_finite", str(checkpoint.path), f"finite numbers in {name}", f"{low} to {high}")
        parameters[name] = tensor
    return parameters


def fingerprint(config: SAEConfig, parameters: Parameters) -> str:
    """Sha256 (hex) of what decides `encode` and `reconstruct`: the same for every file layout and stored dtype."""
    digest = hashlib.sha256(b"stream_interp.sae.v1\n")
    digest.update(msgspec.json.encode({name: getattr(config, name) for name in _FINGERPRINTED_FIELDS}, order="sorted"))
    for name in shapes(config):
        tensor = parameters[name]
        kept_dtype = _narrowest_exact_dtype(tensor)
        digest.update(msgspec.json.encode([name, list(tensor.shape), str(kept_dtype)]))
        for rows in row_chunks(tensor):
            little_endian = rows.to(kept_dtype).contiguous().numpy().astype(f"<f{kept_dtype.itemsize}", copy=False)
            digest.update(little_endian.data)
    return digest.hexdigest()


def _narrowest_exact_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Float32, or float64 for a float64 tensor that float32 cannot hold exactly."""
    if tensor.dtype != torch.float64 or all(torch.equal(r, r.float().double()) for r in row_chunks(tensor)):
        return torch.float32
    return torch.float64


def row_chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views of consecutive rows, small enough that a float64 copy of one does not matter."""
    rows = max(1, _CHUNK_ELEMENTS // max(1, prod(tensor.shape[1:])))
    yield from torch.split(tensor, rows)
