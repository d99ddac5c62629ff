"""`interp.cuts`: the account of every record in one closed range of one input partition. Cuts tile a partition."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.lane import Lane

CE_TYPE = "interp.cut.v1"

Reason = Literal["rejected", "incomplete", "late", "duplicate", "expired", "dtype_unavailable"]


class LaneCount(Struct, frozen=True, kw_only=True):
    """What one lane got in a cut."""

    lane: Lane
    requests: int = 0
    tokens: int = 0


class OpenRequest(Struct, frozen=True, array_like=True):
    """A request that was incomplete at `b`: what a restart must rebuild, and no more."""

    first_offset: int
    records: int  # chunks that had arrived
    born_ms: int  # the partition's largest timestamp when its first chunk arrived


class Cut(Struct, frozen=True, kw_only=True):
    """Range `[a, b)` of an input partition.

    `read_from` is the committed offset: the first offset of the oldest request that was incomplete at `b`.
    The account of a cut balances, in records: `pending_records` of the cut before + `records` = `counted_records` +
    `pending_records` + Σ `not_counted`. `expired` counts offsets that the log had deleted before we read them, and
    chunks that waited for the rest of a request and went with them. `dtype_unavailable` are whole requests of a lane
    whose projector binds this process to a compute_dtype that it does not have.
    `open` and `dropped` are keyed by `request_key`: what waits, and what was given up (with the partition's largest
    timestamp then), so that a restart rebuilds the one and does not count the other.
    """

    schema_version: Literal[1] = 1
    topic: str
    partition: int
    a: int
    b: int
    read_from: int
    closed_at_ms: int
    records: int  # seen in [a, b) or expired there; offsets have holes, so ≤ b − a
    counted_records: int  # chunks of complete requests, `too_short` ones too, some from earlier ranges
    pending_records: int  # chunks of requests still incomplete at b
    lanes: dict[str, LaneCount] = field(default_factory=dict)
    not_counted: dict[Reason, int] = field(default_factory=dict)  # records
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    incomplete_requests: int = 0
    open: dict[str, OpenRequest] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


def encode_cut(cut: Cut) -> Envelope:
    """The record of a cut, keyed by its input partition."""
    return json_record(f"{cut.topic}/{cut.partition}", CE_TYPE, cut)
