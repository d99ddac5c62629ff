"""A batch's part on a CUDA device: all of it is queued at once, and one copy brings what came of it.

The host waits for the device once a batch, when it wants the result; until then it lays out the next batch and puts
the one before into its windows. Copies run on streams of their own, from and into pinned memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
import torch

from stream_interp.encode.per_request import Errors, error_terms, square_sums
from stream_interp.encode.tokens import Tokens
from stream_interp.sae.encoder import SAE
from stream_interp.sae.firings import Firings, TooManyFirings
from stream_interp.sae.queued import Room, Rows

_ALONE = 1 << 20  # firings there is room for where the caller sets no bound


class Link(Protocol):
    """Copies between the host and a device."""

    def up(self, host: torch.Tensor) -> torch.Tensor:
        """On the device, for what it computes from now on; does not wait."""

    def down(self, there: torch.Tensor) -> Callable[[], torch.Tensor]:
        """On the host, to be called for: waits for what was queued before, and for nothing after."""


class _CudaLink:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def up(self, host: torch.Tensor) -> torch.Tensor:
        pinned, computing = host.pin_memory(), torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._up):
            there = pinned.to(self._device, non_blocking=True)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def down(self, there: torch.Tensor) -> Callable[[], torch.Tensor]:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        host = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host.copy_(there, non_blocking=True)
            there.record_stream(self._down)
            done.record()

        def wait() -> torch.Tensor:
            done.synchronize()
            return host

        return wait


@cache
def link_to(device: torch.device) -> Link:
    """One a device, for as long as the process lives."""
    return _CudaLink(device)


def begin(sae: SAE, tokens: Tokens, at_most: int | None, link: Link) -> Callable[[], tuple[Firings, Errors]]:
    """Queues a batch of an SAE that `queues`.

    Args:
        sae: on the device of `link`.
        tokens: of the batch.
        at_most: firings there is to be room for; None: for all, where need be by a second pass.
        link: to the device.

    Returns:
        To be called for what fired and the error terms; it raises TooManyFirings.
    """
    with torch.inference_mode():
        explained = np.flatnonzero(tokens.in_error)
        size = min(len(tokens.x) * sae.d_sae, _ALONE if at_most is None else at_most)
        chosen = torch.from_numpy(explained)
        room, xhat = sae.queue(link.up(tokens.x), size, Rows(explained, link.up(chosen)))
        y = tokens.x[:0] if tokens.target is None else tokens.target[chosen]
        wait = link.down(_packed(room, error_terms(link.up(y), xhat)))

    def end() -> tuple[Firings, Errors]:
        with torch.inference_mode():
            on_host, terms = _unpacked(wait(), size, len(explained), sae.dtype)
            fired = on_host.firings(sae.d_sae)
            if fired is not None:
                return fired, Errors(square_sums(y), *terms.numpy())
            if at_most is not None:
                raise TooManyFirings
            return begin(sae, tokens, int(on_host.fired), link)()

    return end


def _packed(room: Room, terms: torch.Tensor) -> torch.Tensor:
    """All bytes in a row; what takes eight of them comes first, for it must lie at a multiple of eight."""
    parts = (room.fired.view(1), room.entry, terms.reshape(-1), room.value)
    return torch.cat([part.view(torch.uint8) for part in parts])


def _unpacked(packed: torch.Tensor, size: int, terms: int, dtype: torch.dtype) -> tuple[Room, torch.Tensor]:
    widths = [8, 8 * (size + 1), 8 * 3 * terms]
    parts = torch.split(packed, [*widths, len(packed) - sum(widths)])
    fired, entry = (part.view(torch.int64) for part in parts[:2])
    return Room(fired[0], entry, parts[3].view(dtype)), parts[2].view(torch.float64).view(3, terms)
