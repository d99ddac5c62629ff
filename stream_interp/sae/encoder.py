"""A loaded SAE: `encode`, `decode`, `reconstruct`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.errors import UsageError
from stream_interp.sae.activation import keep_above, keep_above_each, keep_gated, keep_group_max, keep_top_k
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.decoding import decode_from_file, decode_sparse
from stream_interp.sae.normalisation import Normalised, normalise

Matrix = torch.Tensor | NDArray[Any]


@dataclass(frozen=True, eq=False)
class SAE:
    """An SAE in canonical form. Inputs may be torch or numpy, of any floating dtype; outputs are in the SAE's own.

    `fingerprint` names the published parameters and everything that changes `encode` or `reconstruct`.
    """

    config: SAEConfig
    fingerprint: str
    canonical: Canonical = field(repr=False)

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.config.d_in

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.config.d_sae

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.canonical.W_enc.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.canonical.W_enc.dtype

    @property
    def explains(self) -> Literal["input", "output", "nothing"]:
        """What its reconstruction is of: the input, another hook's activations, or it has none."""
        if not self.config.reconstructs:
            return "nothing"
        return "output" if self.config.transcodes else "input"

    @property
    def memory_bytes(self) -> int:
        """Bytes of all parameters in memory; a decoder that stays in its file is not among them."""
        return sum(tensor.nbytes for tensor in self.canonical.tensors)

    def encode(self, x: Matrix) -> torch.Tensor:
        """Feature activations [n, d_sae] of `x` [n, d_in]. Allocates n·d_sae entries and nothing else of that size.

        Raises:
            UsageError: `x` is not a floating-point matrix of width d_in.
        """
        with torch.inference_mode():
            return self._encode(normalise(self.canonical.normalisation, floats(x, "x", self.d_in, self.device)))

    def decode(self, acts: Matrix) -> torch.Tensor:
        """`acts` [n, d_sae] @ W_dec + b_dec [n, d_out].

        Only `reconstruct` undoes a per-token normalisation and adds the skip: both need the input.

        Raises:
            UsageError: `acts` is not a floating-point matrix of width d_sae, or this is a layer of a cross-layer
                transcoder, which has no output of its own.
        """
        with torch.inference_mode():
            return self._decode(acts)

    def reconstruct(self, x: Matrix) -> torch.Tensor:
        """What the SAE makes of `x` [n, d_in]: [n, d_out] in the units of the raw input. Raises UsageError."""
        with torch.inference_mode():
            raw = floats(x, "x", self.d_in, self.device)
            normalised = normalise(self.canonical.normalisation, raw)
            return self._reconstruct(raw, normalised, self._encode(normalised))

    def reconstruct_from(self, x: Matrix, acts: Matrix) -> torch.Tensor:
        """The same where `acts` = `encode(x)` [n, d_sae] is at hand. Raises UsageError."""
        with torch.inference_mode():
            raw = floats(x, "x", self.d_in, self.device)
            return self._reconstruct(raw, normalise(self.canonical.normalisation, raw), acts)

    @cached_property
    def _activate(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.canonical.k is not None:
            return partial(keep_group_max if self.canonical.grouped else keep_top_k, k=self.canonical.k)
        if self.canonical.magnitude is not None:
            gain, offset = self.canonical.magnitude
            return partial(keep_gated, threshold=self.canonical.threshold, gain=gain, offset=offset)
        low, high = torch.aminmax(self.canonical.threshold)
        if low == high:
            return partial(keep_above, threshold=float(low))
        return partial(keep_above_each, threshold=self.canonical.threshold)

    def _encode(self, normalised: Normalised) -> torch.Tensor:
        z = normalised.x.to(self.dtype)
        return self._activate(torch.addmm(self.canonical.b_enc, z, self.canonical.W_enc))

    def _decode(self, acts: Matrix) -> torch.Tensor:
        fired = floats(acts, "acts", self.d_sae, self.device).to(self.dtype)
        W_dec, b_dec = self.canonical.W_dec, self.canonical.b_dec
        if W_dec is None or b_dec is None:
            raise UsageError(
                "one layer of a cross-layer transcoder makes no output: it takes the acts of all layers before; "
                "load the whole set and call its reconstruct"
            )
        if isinstance(W_dec, torch.Tensor):
            return decode_sparse(fired, W_dec, b_dec)
        return decode_from_file(fired, W_dec, b_dec)

    def _reconstruct(self, raw: torch.Tensor, normalised: Normalised, acts: Matrix) -> torch.Tensor:
        output = normalised.undo(self._decode(acts)).to(self.dtype)
        W_skip = self.canonical.W_skip
        return output if W_skip is None else output.addmm_(raw.to(self.dtype), W_skip)


def floats(values: Matrix, name: str, width: int, device: torch.device) -> torch.Tensor:
    """`values` as a floating-point tensor [n, width] on `device`. Raises UsageError."""
    if values.ndim != 2 or values.shape[1] != width:
        raise UsageError(f"{name} has shape {list(values.shape)}, this SAE takes [n, {width}]; is it of this hook?")
    if isinstance(values, np.ndarray):
        if values.dtype.kind != "f" or values.dtype.itemsize > 8:
            raise UsageError(f"{name} is {values.dtype}, an SAE takes float16, float32 or float64")
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        values = torch.from_numpy(np.require(native, requirements=["C", "W"]))  # torch takes no read-only memory
    if not values.is_floating_point():
        raise UsageError(f"{name} is {values.dtype}, an SAE takes floating-point numbers")
    return values.to(device)
