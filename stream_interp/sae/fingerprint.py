"""What an SAE is called: sha256 of its published parameters and of the fields that change what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import torch

from stream_interp.sae.config import SAEConfig
from stream_interp.sae.tensors import LazyTensor

_FIELDS = (
    "architecture", "k", "centred", "normalisation", "activation_scale", "rescaled_by_decoder_norm",
)  # fmt: skip


class Fingerprint:
    """The same for every file layout and stored dtype: parameters unfolded, oriented, losslessly widened to float32.

    Tensors are added in the order of `checkpoint.shapes`; float64 ones that float32 cannot hold are kept as float64.
    """

    def __init__(self, config: SAEConfig) -> None:
        self._digest = hashlib.sha256(b"stream_interp.sae.v1\n")
        self._digest.update(msgspec.json.encode({name: getattr(config, name) for name in _FIELDS}, order="sorted"))
        self._dtype = torch.float32

    def begin(self, name: str, tensor: LazyTensor) -> None:
        """Its name, shape and dtype; reads a float64 tensor once to see whether float32 holds it."""
        self._dtype = _narrowest_exact_dtype(tensor)
        self._digest.update(msgspec.json.encode([name, list(tensor.shape), str(self._dtype)]))

    def rows(self, blocks: Iterable[torch.Tensor]) -> None:
        """The next rows of the tensor that has begun."""
        for block in blocks:
            values = block.to(self._dtype).contiguous().numpy()
            self._digest.update(values.astype(f"<f{self._dtype.itemsize}", copy=False).data)

    def hexdigest(self) -> str:
        """64 hex digits."""
        return self._digest.hexdigest()


def _narrowest_exact_dtype(tensor: LazyTensor) -> torch.dtype:
    if tensor.dtype != torch.float64:
        return torch.float32
    exact = all(torch.equal(block, block.float().double()) for _, _, block in tensor.blocks())
    return torch.float32 if exact else torch.float64
