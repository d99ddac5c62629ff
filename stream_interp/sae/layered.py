"""An SAE for each layer of a model: a transcoder set, or a cross-layer transcoder, which writes into later layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from stream_interp.errors import SAELoadError, UsageError
from stream_interp.sae.checkpoint import Across, Checkpoint, LayeredCheckpoint, parameter_bytes
from stream_interp.sae.decoding import decode_from_file
from stream_interp.sae.encoder import SAE, Matrix, floats
from stream_interp.sae.fingerprint import layered_fingerprint
from stream_interp.sae.firings import Firings
from stream_interp.sae.folding import fold


@dataclass(frozen=True, eq=False)
class LayeredSAE:
    """Inputs and outputs are [layers, n, width], torch or numpy. Nothing is in memory before it is asked for.

    Decoders stay in their files: of them the rows of features that fired are read.
    """

    checkpoint: LayeredCheckpoint = field(repr=False)
    dtype: torch.dtype
    device: torch.device
    max_memory_bytes: int | None = None

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.checkpoint.layers)

    @property
    def d_in(self) -> int:
        """Width of each layer's input."""
        return self.checkpoint.layers[0].config.d_in

    @property
    def d_sae(self) -> int:
        """Number of features of each layer."""
        return self.checkpoint.layers[0].config.d_sae

    @property
    def d_out(self) -> int:
        """Width of each layer's output."""
        return self.checkpoint.layers[0].config.d_out

    @property
    def crosses_layers(self) -> bool:
        """Whether an output is made of the features of earlier layers too."""
        return self.checkpoint.across is not None

    @cached_property
    def fingerprint(self) -> str:
        """Of the whole: all layers' and, across layers, the decoders. Reads every file once, in bounded memory.

        Raises:
            SAELoadError: as `layer`; a decoder or a skip that is not finite.
        """
        layers = [self.layer(i).fingerprint for i in range(self.n_layers)]
        return layered_fingerprint(self.checkpoint, layers)

    def layer(self, i: int) -> SAE:
        """The encoder of one hook, loaded anew, with its own fingerprint. Of a transcoder set it reconstructs, too.

        Raises:
            UsageError: no such layer.
            SAELoadError: a parameter that is not finite, or it does not fit `max_memory_bytes`.
        """
        if not 0 <= i < self.n_layers:
            raise UsageError(f"{self.checkpoint.path}#{i}: it has layers 0 to {self.n_layers - 1}")
        checkpoint = self.checkpoint.layers[i]
        check_memory([checkpoint], self.dtype, self.max_memory_bytes)
        try:
            return SAE(checkpoint.config, *fold(checkpoint, self.dtype, self.device))
        except OSError as error:
            raise SAELoadError("unreadable", str(checkpoint.path), "files that can be read", str(error)) from error

    def encode(self, x: Matrix) -> torch.Tensor:
        """Feature activations [layers, n, d_sae] of `x` [layers, n, d_in]. The encoders are loaded at the first call.

        Raises:
            UsageError: `x` is not a floating-point tensor of this shape.
            SAELoadError: as `layer`; the encoders together do not fit `max_memory_bytes`.
        """
        self._require_shape(x, "x", self.d_in)
        acts = torch.empty(self.n_layers, x.shape[1], self.d_sae, dtype=self.dtype, device=self.device)
        for i, sae in enumerate(self._encoders):
            acts[i] = sae.encode(x[i])
        return acts

    def reconstruct(self, x: Matrix) -> torch.Tensor:
        """What the set makes of `x` [layers, n, d_in]: every layer's output [layers, n, d_out]. Raises as `encode`,
        and SAELoadError where a number that it needs is not finite.
        """
        return self.reconstruct_from(x, self.encode(x))

    def reconstruct_from(self, x: Matrix, acts: Matrix) -> torch.Tensor:
        """The same where `acts` = `encode(x)` [layers, n, d_sae] is at hand. Raises as `reconstruct`."""
        self._require_shape(x, "x", self.d_in)
        self._require_shape(acts, "acts", self.d_sae)
        if x.shape[1] != acts.shape[1]:
            raise UsageError(f"x is of {x.shape[1]} tokens, acts of {acts.shape[1]}")
        across = self.checkpoint.across
        if across is None:
            return torch.stack([sae.reconstruct_from(x[i], acts[i]) for i, sae in enumerate(self._encoders)])
        with torch.inference_mode():
            return self._written(across, x, acts).to(self.dtype)

    @cached_property
    def _encoders(self) -> list[SAE]:
        check_memory(list(self.checkpoint.layers), self.dtype, self.max_memory_bytes)
        return [self.layer(i) for i in range(self.n_layers)]

    def _written(self, across: Across, x: Matrix, acts: Matrix) -> torch.Tensor:
        """[layers, n, d_out] in float32 or better: long sums."""
        wide = torch.promote_types(self.dtype, torch.float32)
        b_dec = self._finite(across.b_dec.to(self.device, wide), "b_dec")
        output = b_dec[:, None].repeat(1, x.shape[1], 1)
        for source, first_target, W in across.writes:
            fired = Firings.of(floats(acts[source], "acts", self.d_sae, self.device).to(self.dtype))
            nothing = torch.zeros(W.shape[1], dtype=self.dtype, device=self.device)
            written = decode_from_file(fired, x.shape[1], W, nothing).view(
                x.shape[1], W.shape[1] // self.d_out, self.d_out
            )
            output[first_target : first_target + written.shape[1]] += written.transpose(0, 1)
        for (source, target), S in across.skips.items():
            z = _normalised(across, floats(x[source], "x", self.d_in, self.device).to(wide), source)
            output[target].addmm_(z, self._finite(S.read().to(self.device, wide), f"skip {source} to {target}"))
        if across.outputs is not None:
            mean, std = (t[:, None].to(self.device, wide) for t in across.outputs)
            output.mul_(std).add_(mean)
        return output

    def _finite(self, values: torch.Tensor, name: str) -> torch.Tensor:
        if not bool(values.isfinite().all()):
            expected = f"{name} finite in {values.dtype}"
            raise SAELoadError("not_finite", str(self.checkpoint.path), expected, "other numbers")
        return values

    def _require_shape(self, values: Matrix, name: str, width: int) -> None:
        if values.ndim != 3 or values.shape[0] != self.n_layers or values.shape[2] != width:
            raise UsageError(f"{name} has shape {list(values.shape)}, this set takes [{self.n_layers}, n, {width}]")


def check_memory(checkpoints: list[Checkpoint], dtype: torch.dtype, max_memory_bytes: int | None) -> None:
    """Raises SAELoadError where the parameters to be held are more."""
    needed = sum(parameter_bytes(checkpoint, dtype) for checkpoint in checkpoints)
    if max_memory_bytes is not None and needed > max_memory_bytes:
        found = f"{needed} bytes needed to load it as {dtype}"
        raise SAELoadError("too_large", str(checkpoints[0].path), f"at most {max_memory_bytes} bytes", found)


def _normalised(across: Across, x: torch.Tensor, layer: int) -> torch.Tensor:
    if across.inputs is None:
        return x
    mean, std = (t[layer].to(x) for t in across.inputs)
    return (x - mean) / std
