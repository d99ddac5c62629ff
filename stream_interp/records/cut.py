"""`interp.cuts`: the account of every record in one closed range of one input partition. Cuts tile a partition."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.lane import Lane

CE_TYPE = "interp.cut.v1"

Reason = Literal["rejected", "incomplete", "late", "duplicate", "expired"]


class LaneCount(Struct, frozen=True, kw_only=True):
    """What one lane got in a cut."""

    lane: Lane
    requests: int = 0
    tokens: int = 0


class Cut(Struct, frozen=True, kw_only=True):
    """Range `[a, b)` of an input partition.

    `read_from` is the committed offset: the first offset of the oldest request that was incomplete at `b`.
    `counted_records` + `pending_records` change + Σ `not_counted` accounts for each record in the range;
    `expired` counts offsets that the log had deleted before we read them. `dropped` lists requests at or after
    `read_from` that were given up, so that a restart does not count their chunks again.
    """

    schema_version: Literal[1] = 1
    topic: str
    partition: int
    a: int
    b: int
    read_from: int
    closed_at_ms: int
    records: int  # records seen in [a, b); offsets have holes, so ≤ b − a
    counted_records: int  # chunks of requests counted in this cut, some from earlier ranges
    pending_records: int  # chunks of requests still incomplete at b
    lanes: dict[str, LaneCount] = field(default_factory=dict)
    not_counted: dict[Reason, int] = field(default_factory=dict)  # records; `incomplete` also in requests below
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    incomplete_requests: int = 0
    dropped: list[str] = field(default_factory=list)


def encode_cut(cut: Cut) -> Envelope:
    """The record of a cut, keyed by its input partition."""
    return json_record(f"{cut.topic}/{cut.partition}", CE_TYPE, cut)
