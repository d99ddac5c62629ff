"""A loaded SAE: `encode`, `decode`, `reconstruct`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray

from stream_interp.errors import UsageError
from stream_interp.sae.activation import fire
from stream_interp.sae.blocks import product
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.config import SAEConfig
from stream_interp.sae.decoding import decode_fired, decode_from_file
from stream_interp.sae.firings import Firings
from stream_interp.sae.normalisation import Normalised, normalise
from stream_interp.sae.queued import Room, Rows, find

_SKIP_BLOCK = 64  # rows of a product at once

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
        """Feature activations [n, d_sae] of `x` [n, d_in]; a row's do not depend on the other rows, bit for bit.

        Rows are multiplied 512 at a time, so one at a time is slow. Allocates n·d_sae entries and little else.

        Raises:
            UsageError: `x` is not a floating-point matrix of width d_in.
        """
        return self.firings(x).dense(len(x), self.d_sae)

    def firings(self, x: Matrix, at_most: int | None = None) -> Firings:
        """The entries of `encode(x)` that are not 0; never holds [n, d_sae].

        Raises:
            UsageError: `x` is not a floating-point matrix of width d_in.
            TooManyFirings: more than `at_most`.
        """
        with torch.inference_mode():
            return self._fire(normalise(self.canonical.normalisation, floats(x, "x", self.d_in, self.device)), at_most)

    def queue(self, x: torch.Tensor, size: int, explained: Rows) -> tuple[Room, torch.Tensor]:
        """What fires in `x` [n, d_in], which is on the SAE's device, and some reconstructions. Waits for nothing.

        Args:
            size: of the room for what fires.
            explained: k tokens whose reconstruction is wanted; none where no decoder is in memory.

        Returns:
            What fired; the reconstruction [k, d_out].
        """
        with torch.inference_mode():
            normalised = normalise(self.canonical.normalisation, x)
            z = self._centred(normalised)
            if not len(explained.on_host):
                return find(self.canonical, z, size)
            room, decoded = find(self.canonical, z, size, explained)
            return room, self._output(x[explained.there], normalised.of(explained.there), decoded)

    @property
    def queues(self) -> bool:
        """`queue` is what is fast: it is on a CUDA device, with a decoder in its memory or with none."""
        in_memory = self.canonical.W_dec is None or isinstance(self.canonical.W_dec, torch.Tensor)
        return self.device.type == "cuda" and in_memory

    def subset(self, features: Sequence[int] | NDArray[np.integer[Any]]) -> SAE:
        """An encoder of these features alone, at their share of the cost: its feature i is this one's `features[i]`.

        What fires is the same but for float32 rounding: products of other widths round differently. It has no decoder
        and a fingerprint of its own.

        Raises:
            UsageError: a feature that there is not, or twice; an SAE whose features compete (TopK, groupmax).
        """
        if self.canonical.k is not None:
            raise UsageError(
                f"{self.config.architecture}: which features fire depends on all others; take the whole SAE"
            )
        ids = np.array(features, np.int64).reshape(-1)
        if not len(ids) or ids.min() < 0 or ids.max() >= self.d_sae or len(np.unique(ids)) < len(ids):
            raise UsageError(f"features: expected one or more of 0 to {self.d_sae - 1}, none twice")
        canonical, chosen = self.canonical, torch.from_numpy(ids).to(self.device)
        magnitude = canonical.magnitude and (canonical.magnitude[0][chosen], canonical.magnitude[1][chosen])
        few = replace(
            canonical, W_enc=canonical.W_enc[:, chosen], b_enc=canonical.b_enc[chosen], W_dec=None, b_dec=None,
            threshold=canonical.threshold[chosen], W_skip=None, magnitude=magnitude,
        )  # fmt: skip
        config = structs.replace(self.config, d_sae=len(ids), reconstructs=False)
        fingerprint = hashlib.sha256(f"{self.fingerprint} {ids.tolist()}".encode()).hexdigest()
        return SAE(config, fingerprint, few)

    def decode(self, acts: Matrix) -> torch.Tensor:
        """`acts` [n, d_sae] @ W_dec + b_dec [n, d_out].

        Only `reconstruct` undoes a per-token normalisation and adds the skip: both need the input.

        Raises:
            UsageError: `acts` is not a floating-point matrix of width d_sae, or this is a layer of a cross-layer
                transcoder, which has no output of its own.
        """
        with torch.inference_mode():
            return self._decode(self._fired(acts), len(acts))

    def reconstruct(self, x: Matrix) -> torch.Tensor:
        """What the SAE makes of `x` [n, d_in]: [n, d_out] in the units of the raw input. Raises UsageError."""
        with torch.inference_mode():
            raw = floats(x, "x", self.d_in, self.device)
            normalised = normalise(self.canonical.normalisation, raw)
            return self._reconstruct(raw, normalised, self._fire(normalised))

    def reconstruct_from(self, x: Matrix, acts: Matrix | Firings) -> torch.Tensor:
        """The same where `acts` = `encode(x)` [n, d_sae] or `firings(x)` is at hand. Raises UsageError."""
        with torch.inference_mode():
            raw = floats(x, "x", self.d_in, self.device)
            fired = acts if isinstance(acts, Firings) else self._fired(acts)
            return self._reconstruct(raw, normalise(self.canonical.normalisation, raw), fired)

    def _fire(self, normalised: Normalised, at_most: int | None = None) -> Firings:
        return fire(self.canonical, self._centred(normalised), at_most)

    def _centred(self, normalised: Normalised) -> torch.Tensor:
        z, centre = normalised.x, self.canonical.centre
        if centre is not None and self.dtype.itemsize < centre.dtype.itemsize:
            z = z - centre  # before rounding: activations far from 0 would lose what sets them apart
        return z.to(self.dtype)

    def _fired(self, acts: Matrix) -> Firings:
        return Firings.of(floats(acts, "acts", self.d_sae, self.device).to(self.dtype))

    def _decode(self, fired: Firings, n: int) -> torch.Tensor:
        W_dec, b_dec = self.canonical.W_dec, self.canonical.b_dec
        if W_dec is None or b_dec is None:
            raise UsageError(
                "no decoder here: one layer of a cross-layer transcoder makes no output, it takes acts of all layers "
                "before (load the whole set and call its reconstruct); nor does a subset of features"
            )
        if isinstance(W_dec, torch.Tensor):
            return decode_fired(fired, n, W_dec, b_dec)
        return decode_from_file(fired, n, W_dec, b_dec)

    def _reconstruct(self, raw: torch.Tensor, normalised: Normalised, fired: Firings) -> torch.Tensor:
        return self._output(raw, normalised, self._decode(fired, len(raw)))

    def _output(self, raw: torch.Tensor, normalised: Normalised, decoded: torch.Tensor) -> torch.Tensor:
        output = normalised.undo(decoded).to(self.dtype)
        W_skip = self.canonical.W_skip
        return output if W_skip is None else output.add_(product(raw.to(self.dtype), W_skip, _SKIP_BLOCK))


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
