"""Streams of snapshot records for tests, and a partition driven by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_interp.encode.lanes import Lanes
from stream_interp.encode.open_cut import ClosedCut
from stream_interp.encode.partition import InputPartition
from stream_interp.encode.position import Position, metadata_of, read_metadata
from stream_interp.records.consumed import Consumed
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.settings import RequestSettings, Settings, WindowSettings

TOPIC = "interp.activations"
START = Position(b=0)


@dataclass(frozen=True)
class Chunk:
    """One chunk of a request, two tokens long."""

    request: str
    chunk: int = 0
    chunks: int = 1
    hook: str = "layer.1"
    d_in: int = 3
    tokens: int | None = None
    dtype: str = "float16"


def envelope(chunk: Chunk, positions=None):
    tokens = 2 * chunk.chunks if chunk.tokens is None else chunk.tokens
    acts = np.full((2, chunk.d_in), chunk.chunk + 1, chunk.dtype)
    return encode_snapshot(
        Snapshot(model_id="m", hook_name=chunk.hook, request_id=chunk.request, acts=acts, acts_dtype=chunk.dtype,
                 positions=positions, chunk=chunk.chunk, chunks=chunk.chunks, request_tokens=tokens), 0,
    )  # fmt: skip


def record(chunk: Chunk, offset: int, ts: int = 0) -> Consumed:
    e = envelope(chunk)
    return Consumed(TOPIC, 0, offset, ts, e.key, e.headers, e.value)


def settings(
    *,
    max_age_s: float = 60.0,
    max_bytes: int = 2**20,
    requests: int = 10**6,
    cut_age_s: float = 0.0,
    min_age_s: float = 0.0,
):
    return Settings(
        window=WindowSettings(requests=requests, min_age_s=min_age_s, max_age_s=cut_age_s),
        request=RequestSettings(max_age_s=max_age_s, max_bytes=max_bytes),
    )


def started(given: Settings, position: Position = START, low: int = 0, lanes: Lanes | None = None):
    return InputPartition(TOPIC, 0, lanes or Lanes(()), given, position, low, 0.0)


def restarted(given: Settings, closed: ClosedCut, low: int = 0) -> InputPartition:
    """As after a crash behind this cut: all that is known is the committed offset and its metadata."""
    text = metadata_of(closed.position)
    assert text is not None
    position = read_metadata(closed.position.read_from, text)
    assert isinstance(position, Position)
    return started(given, position, low)


def counted(closed: ClosedCut) -> list[str]:
    return [work.request.request_id for work in closed.cut.work]


def feed(partition: InputPartition, records: list[Consumed], now_s: float = 0.0) -> None:
    for r in records:
        partition.take(r, now_s)
