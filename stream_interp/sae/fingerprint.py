"""What an SAE is called: sha256 of its published parameters and of the fields that change what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Across, LayeredCheckpoint
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.tensors import GATHER_BYTES, LazyTensor

_FIELDS = (
    "architecture", "k", "centred", "normalisation", "activation_scale", "rescaled_by_decoder_norm",
)  # fmt: skip
_UNUSUAL_FIELDS = ("inclusive", "signed")  # told where true alone: most SAEs were named before these were known


class Fingerprint:
    """The same for every file layout and stored dtype: parameters unfolded, oriented, losslessly widened to float32.

    Tensors are added in the order of `checkpoint.shapes`; float64 ones that float32 cannot hold are kept as float64.
    """

    def __init__(self, config: SAEConfig) -> None:
        self._digest = hashlib.sha256(b"stream_interp.sae.v1\n")
        told = (*_FIELDS, *(name for name in _UNUSUAL_FIELDS if getattr(config, name)))
        self._digest.update(msgspec.json.encode({name: getattr(config, name) for name in told}, order="sorted"))
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


def layered_fingerprint(checkpoint: LayeredCheckpoint, layers: Sequence[str]) -> str:
    """Of a whole set: the fingerprints of its layers and, across layers, every decoder [d_sae, targets, d_out].

    Raises:
        SAELoadError: a decoder or a skip that is not finite.
    """
    digest = hashlib.sha256(b"stream_interp.sae.layers.v1\n" + msgspec.json.encode(list(layers)))
    if checkpoint.across is not None:
        for part in _across_parts(checkpoint.across, len(layers)):
            digest.update(part.contiguous().numpy().astype(f"<f{part.itemsize}", copy=False).data)
    return digest.hexdigest()


def _across_parts(across: Across, n_layers: int) -> Iterator[torch.Tensor]:
    affine = [t for pair in (across.inputs, across.outputs) for t in pair or ()]
    yield from (small.double() for small in (across.b_dec, *affine))
    for at, skip in sorted(across.skips.items()):
        yield torch.tensor(at)
        values = skip.read().double()
        if not bool(values.isfinite().all()):
            raise SAELoadError("not_finite", skip.origin, f"finite numbers in the skip {at[0]} to {at[1]}", "others")
        yield values
    for source in range(n_layers):
        yield from _rows_across([W for s, _, W in sorted(across.writes, key=lambda w: w[:2]) if s == source])


def _rows_across(decoders: list[LazyTensor]) -> Iterator[torch.Tensor]:
    dtype = max((_narrowest_exact_dtype(W) for W in decoders), key=lambda d: d.itemsize)
    d_sae, width = decoders[0].shape[0], sum(W.shape[1] for W in decoders)
    for rows in torch.split(torch.arange(d_sae), max(1, GATHER_BYTES // (width * dtype.itemsize))):
        block = torch.cat([W.take(rows).to(dtype) for W in decoders], dim=1)
        if not bool(block.isfinite().all()):
            raise SAELoadError("not_finite", decoders[0].origin, "finite numbers in the decoder", "others")
        yield block
