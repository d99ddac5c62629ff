"""Where an input partition stands after a cut, as it travels in the metadata of the committed offset.

The committed offset itself is `read_from`. Kafka takes 4,000 bytes of metadata; a position that needs more points
to the cut record, which lists the same.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from stream_interp.errors import IntegrityError
from stream_interp.records.cut import Cut, OpenRequest

METADATA_BYTES = 4_000


class Position(Struct, frozen=True, kw_only=True):
    """All that a restart needs to decide as if it had never stopped.

    Attributes:
        b: end of the last cut; everything below it is accounted for.
        ts: largest record timestamp below `b`, ms. Requests age by it, so that reading again decides alike.
        open: requests incomplete at `b`, to be rebuilt; all else between `read_from` and `b` is counted already.
        dropped: requests given up not long ago, whose chunks are `late`; with `ts` of then.
    """

    b: int
    ts: int = 0
    open: dict[str, OpenRequest] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def read_from(self) -> int:
        """First offset of the oldest incomplete request, or `b`."""
        return min((request.first_offset for request in self.open.values()), default=self.b)

    @classmethod
    def of(cls, cut: Cut, ts: int) -> Position:
        """After this cut, with this largest timestamp."""
        return cls(b=cut.b, ts=ts, open=cut.open, dropped=cut.dropped)


class CutPointer(Struct, frozen=True, kw_only=True):
    """A position too large for the metadata: the record `cut` = (partition, offset) of `interp.cuts` has it."""

    b: int
    ts: int
    cut: tuple[int, int]


def metadata_of(position: Position) -> str | None:
    """Compact JSON, or None when it does not fit."""
    encoded = msgspec.json.encode({name: value for name, value in msgspec.structs.asdict(position).items() if value})
    return encoded.decode() if len(encoded) <= METADATA_BYTES else None


def pointer_to(position: Position, cut_partition: int, cut_offset: int) -> str:
    """The metadata in place of one that does not fit."""
    pointer = CutPointer(b=position.b, ts=position.ts, cut=(cut_partition, cut_offset))
    return msgspec.json.encode(pointer).decode()


def read_metadata(offset: int, metadata: str | None) -> Position | CutPointer:
    """The position behind a committed offset. Without metadata (an operator moved the group): `offset` itself.

    Raises:
        IntegrityError: the metadata is not ours.
    """
    if not metadata:
        return Position(b=offset)
    try:
        fields = {"b": 0} | msgspec.json.decode(metadata, type=dict[str, object])
        return msgspec.convert(fields, CutPointer) if "cut" in fields else msgspec.convert(fields, Position)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"the metadata of committed offset {offset} is not ENCODE's ({error}): {metadata[:80]!r}; "
            "use a consumer group of its own (kafka.group_prefix), or reset the group's offsets"
        ) from error
