"""What fires where waiting is dear: on a CUDA device the host learns a size only once all work before it is done.

So all that is found goes into room of a fixed size, with how many entries are set, and nothing here waits: neither for
a size, nor for a number. The tiles of `sae.activation` are the twin for a CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.sae.blocks import BLOCK_TOKENS, blocks
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.decoding import decode_dense
from stream_interp.sae.firings import Firings, TooManyFirings

_EXPECTED_L0 = 128
DECODED_TOKENS = 32  # at once: of a block, one of 20 tokens is decoded


class Room(NamedTuple):
    """What fired, on its way.

    Attributes:
        fired: [] int64, how many entries there are; those beyond the room are lost.
        entry: [room + 1] int64, token · d_sae + feature, ascending; the last holds nothing, and those not set.
        value: [room + 1], the activations.
    """

    fired: torch.Tensor
    entry: torch.Tensor
    value: torch.Tensor

    @classmethod
    def of(cls, size: int, like: torch.Tensor) -> Room:
        """Empty; values are of the dtype of `like`, all on its device."""
        nothing = torch.zeros((), dtype=torch.int64, device=like.device)
        return cls(nothing, nothing.new_zeros(size + 1), like.new_zeros(size + 1))

    def add(self, acts: torch.Tensor, first: int) -> Room:
        """With the entries of `acts` [n, d_sae] that are not 0, of which the first is number `first` of them all."""
        flat, room = acts.view(-1), len(self.entry) - 1
        place = torch.nonzero_static(flat != 0, size=min(room, len(flat)), fill_value=-1).squeeze(1)
        number = torch.arange(len(place), device=place.device) + self.fired
        number = number.where(place >= 0, room).clamp_max_(room)
        self.entry.index_copy_(0, number, place + first)
        self.value.index_copy_(0, number, flat[place.clamp_min(0)])
        return self._replace(fired=self.fired + flat.count_nonzero())

    def firings(self, d_sae: int) -> Firings | None:
        """The entries; waits for them. None: there was no room for all."""
        n = int(self.fired)
        if n >= len(self.entry):
            return None
        entry = self.entry[:n]
        token = entry.div(d_sae, rounding_mode="floor")
        return Firings(token, entry - token * d_sae, self.value[:n])


class Rows(NamedTuple):
    """Some rows, ascending: the host is to know how many are in a block, the device which; neither may ask the other.

    Attributes:
        on_host: [k] their numbers.
        there: [k] the same, on the device.
    """

    on_host: NDArray[np.int64]
    there: torch.Tensor


def find(canonical: Canonical, z: torch.Tensor, size: int, decoded: Rows | None = None) -> tuple[Room, torch.Tensor]:
    """What fires in `z` [n, d_in], normalised and of the dtype of `canonical`. A NaN fires, so that it is seen.

    Args:
        size: of the room.
        decoded: k rows whose output is wanted.

    Returns:
        What fired; the output [k, d_out] of the decoder, which is in memory, for those rows.
    """
    room, d_sae = Room.of(size, z), len(canonical.b_enc)
    memory, outputs = z.new_empty(BLOCK_TOKENS, d_sae), []
    for start, rows, block in blocks(z, BLOCK_TOKENS):
        acts = activated(canonical, torch.addmm(canonical.b_enc, block, canonical.W_enc, out=memory))
        room = room.add(acts[:rows], start * d_sae)
        if decoded is not None:
            first, end = np.searchsorted(decoded.on_host, (start, start + rows))
            outputs += _decoded(canonical, acts, decoded.there[first:end] - start)
    none = z.new_zeros(0, 0 if canonical.b_dec is None else len(canonical.b_dec))
    return room, torch.cat([none, *outputs])


def fire_on_device(canonical: Canonical, z: torch.Tensor, at_most: int | None) -> Firings:
    """What fires in `z`, on its device; waits for it. Raises TooManyFirings: more than `at_most`."""
    size = min(len(z) * len(canonical.b_enc), _EXPECTED_L0 * len(z) if at_most is None else at_most)
    while True:
        room, _ = find(canonical, z, size)
        if (fired := room.firings(len(canonical.b_enc))) is not None:
            return fired
        if at_most is not None:
            raise TooManyFirings
        size = int(room.fired)


def activated(canonical: Canonical, pre: torch.Tensor) -> torch.Tensor:
    """Activations [n, d_sae] of the pre-activations `pre`, whose memory is used again."""
    if canonical.k is None:
        closed = pre <= canonical.threshold
        if canonical.magnitude is not None:
            gain, offset = canonical.magnitude
            pre = pre.mul_(gain).add_(offset).relu_()
        return pre.masked_fill_(closed, 0.0)
    if canonical.grouped:
        group = pre.shape[1] // canonical.k
        value, place = pre.view(len(pre), -1, group).max(dim=2)
        feature = place + torch.arange(0, pre.shape[1], group, device=pre.device)
    else:
        value, feature = pre.topk(min(canonical.k, pre.shape[1]), dim=1)
    return pre.zero_().scatter_(1, feature, value.relu())


def _decoded(canonical: Canonical, acts: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
    """The output for some rows of a block, in parts: a product of one height, in which no row depends on the others."""
    assert isinstance(canonical.W_dec, torch.Tensor)  # as `SAE.queues` says
    assert canonical.b_dec is not None
    outputs = []
    for chosen in torch.split(rows, DECODED_TOKENS):
        for _, n, part in blocks(acts[chosen], DECODED_TOKENS):
            outputs.append(decode_dense(part, canonical.W_dec, canonical.b_dec)[:n])
    return outputs
