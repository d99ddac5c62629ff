"""In which way a lane should be encoded: measured on its own first tokens, proposed in the headers of its fit windows.

DETECT takes the first proposal of any ENCODE; until its projector comes the lane is encoded in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.encode.open_cut import Work
from stream_interp.encode.tokens import counted_acts
from stream_interp.encode.ways import Ways
from stream_interp.records.window import FIT, FLOAT32
from stream_interp.sae.precision import COMPUTE_DTYPES, MEASURED_TOKENS, Choice, choose

SAMPLE_BYTES = 512 * 1024 * 1024  # 128 MiB a lane at d_in 4,096; how many lanes learn at once is not ours to say


class Measured(NamedTuple):
    """What a lane was measured to, and for people how."""

    lane_id: str
    choice: Choice


class _Sample:
    """The first counted tokens of a lane: parts [n, d_in] float32."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint, self.parts, self.tokens, self.bytes = fingerprint, list[NDArray[np.float32]](), 0, 0

    @property
    def whole(self) -> bool:
        return self.tokens >= MEASURED_TOKENS

    def add(self, acts: NDArray[np.generic]) -> None:
        if self.whole:
            return
        part = acts[: MEASURED_TOKENS - self.tokens].astype(np.float32)  # a copy: the poll that it came in is let go
        self.parts.append(part)
        self.tokens, self.bytes = self.tokens + len(part), self.bytes + part.nbytes


class Proposals:
    """What this process proposes for its lanes; each is measured once each time that it learns.

    Where the samples of lanes that learn at once do not fit SAMPLE_BYTES together, the smallest one is dropped, and
    its lane begins again with the tokens that come next.

    Args:
        wanted: `sae.dtype`; all but `auto` is proposed as it is.
        ways: of the SAEs.

    Raises:
        ComputeDtypeUnavailable: what is wanted cannot be had of all SAEs.
    """

    def __init__(self, wanted: str, ways: Ways) -> None:
        self._wanted, self._ways = wanted, ways
        self._chosen: dict[str, str] = {}
        self._samples: dict[str, _Sample] = {}
        if wanted != "auto":
            ways.require(wanted)

    def take(self, batch: Sequence[Work]) -> None:
        """Requests that were just encoded: windows of lanes that learn get the proposal, or the lane's sample grows."""
        for work in batch:
            lane_id, sae = work.entry.lane_id, work.entry.sae
            if work.entry.shape.projector_version != FIT or sae is None:
                self._samples.pop(lane_id, None)  # the projector has come: too late to propose
                self._chosen.pop(lane_id, None)  # a lane that learns again is another one: measured anew
            elif self._wanted != "auto":
                work.window.proposed_dtype = self._wanted
            elif lane_id in self._chosen:
                work.window.proposed_dtype = self._chosen[lane_id]
            else:
                self._samples.setdefault(lane_id, _Sample(sae.fingerprint)).add(counted_acts(work.request))
        while sum(sample.bytes for sample in self._samples.values()) > SAMPLE_BYTES:
            del self._samples[min(self._samples, key=lambda lane_id: self._samples[lane_id].tokens)]

    def measure(self) -> Measured | None:
        """Measures one of the lanes whose sample is whole, if there is one: it may take as long as some batches."""
        lane_id = next((lane_id for lane_id, sample in self._samples.items() if sample.whole), None)
        if lane_id is None:
            return None
        choice = self._choice(self._samples.pop(lane_id))
        self._chosen[lane_id] = choice.compute_dtype
        return Measured(lane_id, choice)

    def _choice(self, sample: _Sample) -> Choice:
        if not self._ways.has_room(sample.fingerprint, *COMPUTE_DTYPES):
            return Choice(FLOAT32, f"{FLOAT32} (sae.max_memory_bytes has no room for a copy of the SAE)")
        sae = self._ways.of(sample.fingerprint, FLOAT32)
        try:
            return choose(sae, torch.from_numpy(np.concatenate(sample.parts)).to(sae.device))
        except torch.OutOfMemoryError:
            return Choice(FLOAT32, f"{FLOAT32} (no memory to measure other ways)")
