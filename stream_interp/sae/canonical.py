"""One form for every SAE: a matrix product with bias, a threshold (or the k largest), a matrix product with bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.checkpoint import Parameters, row_chunks
from stream_interp.sae.config import Normalisation, SAEConfig


@dataclass(frozen=True)
class Canonical:
    """acts = p where p > threshold, else 0; p = z @ W_enc + b_enc; z = x, normalised per token.

    The output is acts @ W_dec + b_dec and, with `W_skip`, + x @ W_skip.

    Shapes: `W_enc` [d_in, d_sae], `b_enc` and `threshold` [d_sae] (threshold >= 0), `W_dec` [d_sae, d_out], `b_dec`
    [d_out], `W_skip` [d_in, d_out], one dtype and device. With `k`, all but the k largest p of a token are dropped
    first, or with `grouped` all but the largest of each of k groups of neighbours.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    threshold: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    W_skip: torch.Tensor | None
    k: int | None
    grouped: bool
    normalisation: Normalisation

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All parameters."""
        skip = () if self.W_skip is None else (self.W_skip,)
        return self.W_enc, self.b_enc, self.threshold, self.W_dec, self.b_dec, *skip


def fold(path: str, config: SAEConfig, raw: Parameters, dtype: torch.dtype, device: torch.device) -> Canonical:
    """Folds centring, the dataset factor and decoder norms, in float64 and rounded once to `dtype`.

    Raises:
        SAELoadError: a result is too large for `dtype`.
    """
    scale = config.activation_scale
    norms = _row_norms(raw["W_dec"]) if config.rescaled_by_decoder_norm else None
    gain = raw["r_mag"].double().exp() if config.architecture == "gated" else norms
    b_enc, threshold = _gate(raw) if config.architecture == "gated" else _threshold(raw, norms)
    if config.centred:
        shift = row_times(raw["b_dec"].double(), raw["W_enc"])
        b_enc = b_enc - (shift if gain is None else shift * gain)

    def place(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return _checked(path, name, tensor.to(dtype).contiguous()).to(device)

    return Canonical(
        W_enc=place("W_enc", _fold_rows(raw["W_enc"], dtype, scale, gain)),
        b_enc=place("b_enc", b_enc),
        threshold=place("threshold", threshold.clamp_min(0)),  # relu(p) where p > t <= 0 is p where p > 0
        W_dec=place("W_dec", _fold_decoder(raw["W_dec"], dtype, scale, norms)),
        b_dec=place("b_dec", raw["b_dec"].double() / scale),
        W_skip=place("W_skip", raw["W_skip"]) if config.skip else None,
        k=config.k if config.architecture in {"topk", "groupmax"} else None,
        grouped=config.architecture == "groupmax",
        normalisation=config.normalisation,
    )


def _gate(raw: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """The gate as a threshold: x'' @ W_enc + b_gate > 0 where p > b_mag - b_gate·exp(r_mag)."""
    b_mag = raw["b_mag"].double()
    return b_mag, b_mag - raw["b_gate"].double() * raw["r_mag"].double().exp()


def _threshold(raw: Parameters, norms: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    b_enc = raw["b_enc"].double()
    threshold = raw["threshold"].double() if "threshold" in raw else torch.zeros_like(b_enc)
    return (b_enc, threshold) if norms is None else (b_enc * norms, threshold)


def _fold_rows(matrix: torch.Tensor, dtype: torch.dtype, scale: float, gain: torch.Tensor | None) -> torch.Tensor:
    if scale == 1.0 and gain is None:
        return matrix.to(dtype)
    columns = scale if gain is None else gain * scale
    return _mapped(matrix, dtype, lambda rows, _: rows * columns)


def _fold_decoder(matrix: torch.Tensor, dtype: torch.dtype, scale: float, norms: torch.Tensor | None) -> torch.Tensor:
    if scale == 1.0 and norms is None:
        return matrix.to(dtype)
    if norms is None:
        return _mapped(matrix, dtype, lambda rows, _: rows / scale)
    divisor = (norms * scale).where(norms > 0, 1.0)[:, None]  # a row of zeros never fires: leave it
    return _mapped(matrix, dtype, lambda rows, at: rows / divisor[at : at + len(rows)])


def _mapped(
    matrix: torch.Tensor, dtype: torch.dtype, change: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """`change(rows in float64, index of the first row)` over all rows, rounded once."""
    out = torch.empty(matrix.shape, dtype=dtype)
    at = 0
    for rows in row_chunks(matrix):
        out[at : at + len(rows)] = change(rows.double(), at)
        at += len(rows)
    return out


def _row_norms(matrix: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows.double().norm(dim=1) for rows in row_chunks(matrix)])


def row_times(vector: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`vector` [m] @ `matrix` [m, n] in float64, a few rows at a time."""
    out = torch.zeros(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    at = 0
    for rows in row_chunks(matrix):
        out += vector[at : at + len(rows)] @ rows.double()
        at += len(rows)
    return out


def _checked(path: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    low, high = (float(bound) for bound in torch.aminmax(tensor))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise SAELoadError(
            "out_of_range", path, f"{name} within {tensor.dtype}; load it with a wider dtype=", "overflow"
        )
    return tensor
