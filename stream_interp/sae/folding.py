"""From a checkpoint to the canonical form: each matrix checked, fingerprinted, folded and rounded once, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from stream_interp.errors import SAELoadError
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.checkpoint import Checkpoint, require_finite, shapes
from stream_interp.sae.fingerprint import Fingerprint
from stream_interp.sae.tensors import LazyTensor, place

_Fold = Callable[[slice, slice, torch.Tensor], torch.Tensor]  # (rows, columns, block in float64) -> folded
_Watch = Callable[[slice, slice, torch.Tensor], None]


def fold(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> tuple[str, Canonical]:
    """The fingerprint, and the parameters with centring, the dataset factor and decoder norms folded in.

    Folded in float64 and rounded once to `dtype`; centring stays apart where that is narrower than float32.
    Needs the result, and blocks of some 100 MB at most beside it.

    Raises:
        SAELoadError: a parameter that is not finite, or a result that is too large for `dtype`.
    """
    return _Folding(checkpoint, dtype, device).run()


class _Folding:
    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint, self._config = checkpoint, checkpoint.config
        self._dtype, self._device = dtype, device
        self._fingerprint = Fingerprint(self._config)
        expected = shapes(self._config)
        self._vectors = {name: self._vector(name) for name, shape in expected.items() if len(shape) == 1}
        self._norms = _row_norms(checkpoint.tensors["W_dec"]) if self._config.rescaled_by_decoder_norm else None

    def run(self) -> tuple[str, Canonical]:
        config = self._config
        folds: dict[str, _Fold | None] = {"W_enc": self._encoder_fold(), "W_dec": self._decoder_fold(), "W_skip": None}
        centre = self._centre()
        is_half = self._dtype.itemsize < torch.float32.itemsize
        shift = None if centre is None or is_half else _Product(centre, config.d_sae)
        placed: dict[str, torch.Tensor] = {}
        for name, shape in shapes(config).items():  # the fingerprint's order
            tensor = self._checkpoint.tensors[name]
            self._fingerprint.begin(name, tensor)
            if len(shape) == 1:
                self._fingerprint.rows(tensor.row_blocks())
            elif name == "W_dec" and self._checkpoint.decoder_in_file:
                self._fingerprint.rows(self._finite(name, tensor))
            else:
                placed[name] = self._matrix(name, tensor, folds[name], shift.add if shift and name == "W_enc" else None)
        b_enc, threshold = self._biases()
        if shift is not None:
            b_enc = b_enc - (shift.total if self._norms is None else shift.total * self._norms)
        canonical = self._canonical(placed, b_enc, threshold)
        return self._fingerprint.hexdigest(), replace(canonical, centre=self._centre_of_input())

    def _canonical(self, placed: dict[str, torch.Tensor], b_enc: torch.Tensor, threshold: torch.Tensor) -> Canonical:
        config, b_dec = self._config, self._vectors.get("b_dec")
        W_dec = self._checkpoint.tensors["W_dec"] if self._checkpoint.decoder_in_file else placed.get("W_dec")
        return Canonical(
            W_enc=placed["W_enc"],
            b_enc=self._placed("b_enc", b_enc.to(self._dtype)),
            threshold=self._placed("threshold", self._strict(threshold.to(self._dtype))),
            W_dec=W_dec,
            b_dec=None if b_dec is None else self._placed("b_dec", (b_dec / config.activation_scale).to(self._dtype)),
            W_skip=placed.get("W_skip"),
            magnitude=self._magnitude(),
            k=config.k if config.architecture in {"topk", "groupmax"} else None,
            grouped=config.architecture == "groupmax",
            normalisation=config.normalisation,
        )

    def _vector(self, name: str) -> torch.Tensor:
        vector = self._checkpoint.tensors[name].read()
        require_finite(self._checkpoint, name, vector)
        return vector.double()

    def _biases(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`b_enc` before centring, and the threshold.

        A gated SAE's p has no bias: its gate is open where p > -b_gate, its magnitude positive where
        p > -b_mag·exp(-r_mag).
        """
        v = self._vectors
        if self._config.architecture == "gated":
            largest = torch.finfo(self._dtype).max
            positive = (-v["b_mag"] * (-v["r_mag"]).exp()).clamp(-largest, largest)
            return torch.zeros_like(v["b_gate"]), torch.maximum(-v["b_gate"], positive)
        b_enc = v["b_enc"] if self._norms is None else v["b_enc"] * self._norms
        threshold = v.get("threshold", torch.zeros_like(b_enc))
        # relu(p) where p > t <= 0 is p where p > 0
        return b_enc, threshold if self._config.signed else threshold.clamp_min(0)

    def _strict(self, threshold: torch.Tensor) -> torch.Tensor:
        """p >= t is p > the number of this dtype just below t."""
        return threshold.nextafter(torch.full_like(threshold, -torch.inf)) if self._config.inclusive else threshold

    def _centre(self) -> torch.Tensor | None:
        """[d_in] what is subtracted from the input as `W_enc` sees it."""
        if self._config.normalisation == "mean_std":
            return self._vectors["input_mean"] / self._vectors["input_std"]
        return self._vectors["b_dec"] if self._config.centred else None

    def _centre_of_input(self) -> torch.Tensor | None:
        """The same of the input as it comes."""
        if self._config.normalisation == "mean_std":
            return self._placed("input_mean", self._vectors["input_mean"].float())
        if not self._config.centred:
            return None
        return self._placed("b_dec", (self._vectors["b_dec"] / self._config.activation_scale).float())

    def _magnitude(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self._config.architecture != "gated":
            return None
        gain, offset = self._vectors["r_mag"].exp(), self._vectors["b_mag"]
        return self._placed("r_mag", gain.to(self._dtype)), self._placed("b_mag", offset.to(self._dtype))

    def _encoder_fold(self) -> _Fold | None:
        scale, norms = self._config.activation_scale, self._norms
        if self._config.normalisation == "mean_std":
            std = self._vectors["input_std"][:, None]
            return lambda rows, _columns, block: block / std[rows]
        if norms is None:
            return None if scale == 1.0 else lambda _rows, _columns, block: block * scale
        factor = norms * scale
        return lambda _rows, columns, block: block * factor[columns]

    def _decoder_fold(self) -> _Fold | None:
        scale, norms = self._config.activation_scale, self._norms
        if norms is None:
            return None if scale == 1.0 else lambda _rows, _columns, block: block / scale
        divisor = (norms * scale).where(norms > 0, 1.0)[:, None]  # a row of zeros never fires: leave it
        return lambda rows, _columns, block: block / divisor[rows]

    def _matrix(self, name: str, tensor: LazyTensor, change: _Fold | None, watch: _Watch | None) -> torch.Tensor:
        out = torch.empty(tensor.shape, dtype=self._dtype)
        for rows, columns, block in tensor.blocks():
            require_finite(self._checkpoint, name, block)
            if watch is not None:
                watch(rows, columns, block)
            if not tensor.turned:
                self._fingerprint.rows([block])
            place(out, rows, columns, block if change is None else change(rows, columns, block.double()))
        if tensor.turned:
            exact = change is None and torch.promote_types(self._dtype, tensor.dtype) == self._dtype
            self._fingerprint.rows(torch.split(out, 1_024) if exact else tensor.row_blocks())
        return self._placed(name, out)

    def _finite(self, name: str, tensor: LazyTensor) -> Iterator[torch.Tensor]:
        for rows in tensor.row_blocks():
            require_finite(self._checkpoint, name, rows)
            yield rows

    def _placed(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        low, high = (float(bound) for bound in torch.aminmax(tensor))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            expected = f"{name} within {tensor.dtype}; load it with a wider dtype="
            raise SAELoadError("out_of_range", str(self._checkpoint.path), expected, "overflow")
        return tensor.to(self._device)


class _Product:
    """`vector` [m] @ a matrix [m, n] in float64, block by block."""

    def __init__(self, vector: torch.Tensor, n: int) -> None:
        self._vector, self.total = vector, torch.zeros(n, dtype=torch.float64)

    def add(self, rows: slice, columns: slice, block: torch.Tensor) -> None:
        self.total[columns] += self._vector[rows] @ block.double()


def _row_norms(matrix: LazyTensor) -> torch.Tensor:
    """[m] float64 of [m, n]."""
    squares = torch.zeros(matrix.shape[0], dtype=torch.float64)
    for rows, _, block in matrix.blocks():
        squares[rows] += block.double().square().sum(1)
    return squares.sqrt()
