"""2,200 requests of SmolLM2-135M, layer 15, through its SAE, small enough to lie here: what `record.py` made.

A token is 32 coordinates and its norm: the directions of the residual stream in which English varies least, and what
is left of Mahalanobis distance and norm without the other 544. What fires is that of the SAE on the whole activation,
by request: each feature's number of tokens and largest activation, without massive tokens. ENCODE, DETECT and
`evaluation` run on it as on any lane; `Recorded` stands where an SAE would, and looks up what it has of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stream_interp.sae.firings import Firings

ENGLISH, PYTHON = 2_000, 200  # requests, in this order
UNIT_TOKENS = 24
COORDINATES = 32
COORDINATE_STEP = 1 / 12  # of an int8, in standard deviations
VALUE_STEP = 0.03  # of the logarithm of an activation
MASSIVE = "norm:400"
D_SAE = 4_608


class Stored(NamedTuple):
    """The arrays of the file.

    Attributes:
        coordinates: [n, UNIT_TOKENS, COORDINATES] int8, in COORDINATE_STEP.
        norm: [n, UNIT_TOKENS] float16, ‖x‖.
        error: [n, UNIT_TOKENS] float16, ‖x − x̂‖.
        fired: [n] uint16, features that fire in each request.
        feature: [m] uint16, ascending in each request; as differences from the one before, modulo 2^16.
        tokens: [m] uint8, in how many tokens.
        largest: [m] uint8, log of the largest activation, in VALUE_STEP.
    """

    coordinates: NDArray[np.int8]
    norm: NDArray[np.float16]
    error: NDArray[np.float16]
    fired: NDArray[np.uint16]
    feature: NDArray[np.uint16]
    tokens: NDArray[np.uint8]
    largest: NDArray[np.uint8]


class Recorded:
    """An SAE of known tokens."""

    d_in = COORDINATES + 1
    d_sae = D_SAE
    fingerprint = "recorded"
    explains: Literal["input"] = "input"

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        rows = self.acts.reshape(-1, self.d_in)
        self._token = {row.tobytes(): k for k, row in enumerate(rows.astype(np.float32))}
        assert len(self._token) == len(rows)

    @classmethod
    def load(cls) -> Recorded:
        """From the file beside this one."""
        with np.load(Path(__file__).with_name("smollm2_l15.npz")) as file:
            return cls(Stored(*(file[name] for name in Stored._fields)))

    @cached_property
    def acts(self) -> NDArray[np.float16]:
        """[n, UNIT_TOKENS, d_in]."""
        coordinates = (self._stored.coordinates * COORDINATE_STEP).astype(np.float16)
        return np.concatenate([coordinates, self._stored.norm[:, :, None]], axis=2)

    @cached_property
    def _firings(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Bounds by token, features, activations. A feature is put in the first so many tokens that are not massive."""
        stored, n = self._stored, len(self._stored.fired)
        request = np.repeat(np.arange(n), stored.fired)
        feature = np.cumsum(stored.feature, dtype=np.uint16).astype(np.int64)  # wraps as the differences did
        ordinary = np.argsort(stored.norm > float(MASSIVE.removeprefix("norm:")), axis=1, kind="stable")
        tokens = stored.tokens.astype(np.int64)
        entry = np.repeat(np.arange(len(feature)), tokens)
        place = np.arange(len(entry)) - np.repeat(np.cumsum(tokens) - tokens, tokens)
        token = request[entry] * UNIT_TOKENS + ordinary[request[entry], place]
        order = np.lexsort((feature[entry], token))
        value = np.exp(stored.largest * np.float32(VALUE_STEP))[entry]
        bounds = np.searchsorted(token[order], np.arange(n * UNIT_TOKENS + 1))
        return bounds, feature[entry][order], value[order]

    def firings(self, x: torch.Tensor, at_most: int | None = None) -> Firings:
        """What was recorded of the tokens `x` [k, d_in]."""
        bounds, feature, value = self._firings
        known = np.array([self._token[row.tobytes()] for row in x.numpy()], np.int64)
        sizes = bounds[known + 1] - bounds[known]
        token = np.repeat(np.arange(len(known)), sizes)
        rows = np.arange(len(token)) + np.repeat(bounds[known] - np.cumsum(sizes) + sizes, sizes)
        return Firings(*(torch.from_numpy(column) for column in (token, feature[rows], value[rows])))

    def reconstruct_from(self, x: torch.Tensor, acts: Firings) -> torch.Tensor:
        """As far from `x` as the SAE was."""
        known = [self._token[row.tobytes()] for row in x.numpy()]
        xhat = x.clone()
        xhat[:, -1] -= torch.from_numpy(self._stored.error.reshape(-1)[known].astype(np.float32))
        return xhat

    def write(self, path: Path, requests: Sequence[int] | NDArray[np.integer]) -> Path:
        """An activation file of these requests, in this order."""
        chosen = self.acts[np.asarray(requests)]
        ids = np.repeat(np.asarray(requests, np.int32), UNIT_TOKENS)
        save_file({"acts": np.ascontiguousarray(chosen.reshape(-1, self.d_in)), "doc_id": ids}, path)
        return path
