"""The SAEs of a process in every way that projectors bind its lanes to: made once each, shared by all lanes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from stream_interp.errors import ComputeDtypeUnavailable
from stream_interp.records.window import FLOAT32
from stream_interp.sae.encoder import SAE
from stream_interp.sae.precision import COMPUTE_DTYPES, copy_bytes, in_dtype, is_emulated


class Ways:
    """What each SAE multiplies in, by fingerprint.

    Args:
        loaded: the SAEs, in float32.
        max_memory_bytes: of one SAE, all its ways together; None: no limit.
    """

    def __init__(self, loaded: Iterable[SAE], max_memory_bytes: int | None = None) -> None:
        self._loaded = {sae.fingerprint: sae for sae in loaded}
        self._made: dict[tuple[str, str], SAE] = {}
        self._max_memory_bytes = max_memory_bytes

    @property
    def made_bytes(self) -> int:
        """Memory of all that was made beside what was loaded."""
        return sum(self._held(fingerprint) for fingerprint in self._loaded)

    def of(self, fingerprint: str, compute_dtype: str) -> SAE:
        """The SAE multiplying in that way.

        Raises:
            ComputeDtypeUnavailable: it does not work here, or a copy more does not fit.
        """
        if compute_dtype == FLOAT32:
            return self._loaded[fingerprint]
        made = self._made.get((fingerprint, compute_dtype))
        return made or self._make(fingerprint, compute_dtype)

    def require(self, compute_dtype: str) -> None:
        """Makes it of every SAE. Raises ComputeDtypeUnavailable."""
        for fingerprint in self._loaded:
            self.of(fingerprint, compute_dtype)

    def has_room(self, fingerprint: str, *compute_dtypes: str) -> bool:
        """The SAE fits in the largest of these ways, too."""
        sae = self._loaded[fingerprint]
        more = max(copy_bytes(sae, compute_dtype) for compute_dtype in compute_dtypes)
        needed = sae.memory_bytes + self._held(fingerprint) + more
        return self._max_memory_bytes is None or needed <= self._max_memory_bytes

    def _held(self, fingerprint: str) -> int:
        return sum(copy_bytes(self._loaded[of], way) for of, way in self._made if of == fingerprint)

    def _make(self, fingerprint: str, compute_dtype: str) -> SAE:
        if compute_dtype in COMPUTE_DTYPES and not self.has_room(fingerprint, compute_dtype):
            found = f"a copy more of the SAE than sae.max_memory_bytes = {self._max_memory_bytes:,} allows"
            raise ComputeDtypeUnavailable(compute_dtype, found)
        if is_emulated(self._loaded[fingerprint], compute_dtype):
            raise ComputeDtypeUnavailable(compute_dtype, "emulated here: a block of tokens would take a minute")
        try:
            made = in_dtype(self._loaded[fingerprint], compute_dtype)
        except torch.OutOfMemoryError as error:
            raise ComputeDtypeUnavailable(compute_dtype, "no memory for a copy of the SAE") from error
        self._made[fingerprint, compute_dtype] = made
        return made
