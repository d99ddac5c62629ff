"""Chunks → whole requests, of one input partition. Chunks may come in any order and interleave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.requests import Request
from stream_interp.errors import InvalidSnapshot
from stream_interp.records.cut import OpenRequest
from stream_interp.records.lane import digest
from stream_interp.records.snapshot import Snapshot
from stream_interp.settings import RequestSettings

MAX_OPEN_REQUESTS = 4_096  # and as many dropped ones are remembered, so that a cut record stays below 1 MB
OPEN_BYTES_PER_REQUEST_LIMIT = 4  # all incomplete requests of a partition together: so many times request.max_bytes


def request_key(snapshot: Snapshot) -> str:
    """16 hex digits for (site, revision, request): the same request at another hook is another one."""
    s = snapshot
    return digest(s.tenant, s.model_id, s.hook_name, s.model_revision, s.request_id)[:16]


@dataclass
class Incomplete:
    """A request some of whose chunks have arrived. `entry` is its lane at the first of them."""

    key: str
    entry: LaneEntry
    first_offset: int
    born_ms: int
    bytes: int = 0
    chunks: dict[int, Snapshot] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """All chunks have arrived."""
        return len(self.chunks) == next(iter(self.chunks.values())).chunks

    def check(self, snapshot: Snapshot) -> None:
        """Raises InvalidSnapshot if this chunk contradicts the others."""
        first = next(iter(self.chunks.values()))
        if _form(snapshot) != _form(first):
            raise InvalidSnapshot("inconsistent_chunks", str(_form(snapshot)), f"{_form(first)} as the chunks before")

    def joined(self, last_offset: int) -> Request:
        """The whole request. Raises InvalidSnapshot if the tokens do not add up to what its chunks say."""
        parts = [self.chunks[k] for k in range(len(self.chunks))]
        acts = np.concatenate([part.acts for part in parts])
        if len(acts) != parts[0].request_tokens:
            raise InvalidSnapshot(
                "inconsistent_chunks", f"{len(acts)} tokens in {len(parts)} chunks", f"{parts[0].request_tokens}"
            )
        return Request(
            request_id=parts[0].request_id,
            acts=acts,
            acts_out=_concatenated([part.acts_out for part in parts]),
            special_mask=_concatenated([part.special_mask for part in parts]),
            positions=_concatenated([part.positions for part in parts]),
            group_key=parts[0].group_key,
            segment=parts[0].segment,
            last_offset=last_offset,
        )


def _form(snapshot: Snapshot) -> tuple[object, ...]:
    out = snapshot.acts_out
    return (
        snapshot.chunks,
        snapshot.request_tokens,
        snapshot.acts_dtype,
        snapshot.acts.shape[1],
        None if out is None else (str(out.dtype), out.shape[1]),
        snapshot.special_mask is not None,
    )


Scalar = TypeVar("Scalar", bound=np.generic)


def _concatenated(parts: list[NDArray[Scalar] | None]) -> NDArray[Scalar] | None:
    """None where a chunk has none; of positions alone may some chunks have them and others not."""
    held = [part for part in parts if part is not None]
    return np.concatenate(held) if len(held) == len(parts) else None


def whole(snapshot: Snapshot, offset: int) -> Request:
    """The request of a snapshot that came in one chunk."""
    return Request(
        request_id=snapshot.request_id,
        acts=snapshot.acts,
        acts_out=snapshot.acts_out,
        special_mask=snapshot.special_mask,
        positions=snapshot.positions,
        group_key=snapshot.group_key,
        segment=snapshot.segment,
        last_offset=offset,
    )


class Assembly:
    """The incomplete requests of a partition, oldest first, bounded in number, age and bytes.

    Every decision is a function of the log alone, never of the clock or of what one poll returned.
    """

    def __init__(self, limits: RequestSettings) -> None:
        self._limits = limits
        self._open: dict[str, Incomplete] = {}
        self.bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def has_chunk(self, key: str, chunk: int) -> bool:
        """This chunk of an incomplete request is here already."""
        return key in self._open and chunk in self._open[key].chunks

    def add(self, key: str, snapshot: Snapshot, entry: LaneEntry, offset: int, ts: int) -> Incomplete:
        """Keeps a chunk.

        Args:
            key: of `request_key`.
            snapshot: a chunk that is not here yet.
            entry: its lane.
            offset: where the chunk lies.
            ts: the partition's largest timestamp, ms.

        Raises:
            InvalidSnapshot: it contradicts the other chunks of its request; it is not kept.
        """
        request = self._open.get(key)
        if request is None:
            request = self._open[key] = Incomplete(key, entry, offset, ts)
        else:
            request.check(snapshot)
        n_bytes = _bytes_of(snapshot)
        request.chunks[snapshot.chunk] = snapshot
        request.bytes += n_bytes
        self.bytes += n_bytes
        return request

    def take_out(self, key: str) -> Incomplete:
        """Forgets a request and returns what was here of it."""
        request = self._open.pop(key)
        self.bytes -= request.bytes
        return request

    def too_old(self, ts: int) -> Iterator[Incomplete]:
        """Takes out the requests older than `request.max_age` when the partition's largest timestamp is `ts`."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if ts - oldest.born_ms <= self._limits.max_age_s * 1000:
                return
            yield self.take_out(oldest.key)

    def too_large(self, key: str) -> Iterator[Incomplete]:
        """Takes out the request `key` if it is over `request.max_bytes`, and the oldest ones while all are too much."""
        if key in self._open and self._open[key].bytes > self._limits.max_bytes:
            yield self.take_out(key)
        while len(self._open) > MAX_OPEN_REQUESTS or self.bytes > bound_bytes(self._limits):
            yield self.take_out(next(iter(self._open)))

    def summary(self) -> dict[str, OpenRequest]:
        """What a cut says of the incomplete requests."""
        return {k: OpenRequest(r.first_offset, len(r.chunks), r.born_ms) for k, r in self._open.items()}


def bound_bytes(limits: RequestSettings) -> int:
    """What the incomplete requests of one partition may hold."""
    return OPEN_BYTES_PER_REQUEST_LIMIT * limits.max_bytes


def _bytes_of(snapshot: Snapshot) -> int:
    arrays = (snapshot.acts, snapshot.acts_out, snapshot.positions, snapshot.special_mask)
    return sum(array.nbytes for array in arrays if array is not None)
