"""Cutting a large record into parts below `max.message.bytes` and joining them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from stream_interp.errors import IntegrityError


def split(data: bytes, max_bytes: int) -> list[bytes]:
    """Parts of at most `max_bytes`, at least one."""
    return [data[i : i + max_bytes] for i in range(0, len(data), max_bytes)] or [b""]


def sha256(data: bytes) -> str:
    """The hash that a manifest or marker carries."""
    return hashlib.sha256(data).hexdigest()


class Joiner:
    """Collects the parts of records that may interleave; hands a record out when its last part arrives.

    `first_offset` of an incomplete record is the offset below which a reader may not commit.
    """

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, bytes]] = {}
        self._chunks: dict[str, int] = {}
        self._first_offset: dict[str, int] = {}

    def add(self, record_id: str, chunk: int, chunks: int, part: bytes, offset: int) -> bytes | None:
        """The whole record if this part completes it, else None.

        Raises:
            IntegrityError: the part's number is outside the record, or the record's parts disagree on how many they
                are; the record stays as it was.
        """
        expected = self._chunks.get(record_id, chunks)
        if not 0 <= chunk < chunks or chunks != expected:
            raise IntegrityError(
                f"record {record_id}: chunk {chunk} of {chunks}, expected one below {expected}; "
                "was the topic written by hand?"
            )
        parts = self._parts.setdefault(record_id, {})
        self._chunks[record_id] = chunks
        self._first_offset.setdefault(record_id, offset)
        parts[chunk] = part
        if len(parts) < chunks:
            return None
        del self._parts[record_id], self._chunks[record_id], self._first_offset[record_id]
        return b"".join(parts[k] for k in range(chunks))

    def oldest_incomplete(self) -> int | None:
        """Offset of the first part of the oldest incomplete record."""
        return min(self._first_offset.values(), default=None)

    def incomplete(self) -> Iterator[str]:
        """Ids of the records that wait for parts."""
        return iter(self._parts)
