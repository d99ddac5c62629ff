"""What any record becomes on a Kafka topic: key, headers, value. CloudEvents 1.0 in its two Kafka modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import msgspec

from stream_interp.errors import IntegrityError

SAFETENSORS = "application/vnd.safetensors"
JSON = "application/json"
CLOUDEVENT_JSON = "application/cloudevents+json; charset=UTF-8"

_LAST_MS = 253_402_300_799_000  # the last second of the year 9999

Record = TypeVar("Record", bound=msgspec.Struct)


class Envelope(NamedTuple):
    """A record as a producer takes it. `value` None is a tombstone."""

    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes | None


def binary(key: str, ce_type: str, content_type: str, value: bytes, **attributes: str | int) -> Envelope:
    """CloudEvents binary mode: each attribute is a `ce_` header, the value is the data as it is."""
    named = {"ce_specversion": "1.0", "ce_type": ce_type} | {f"ce_{k}": str(v) for k, v in attributes.items()}
    headers = [(name, text.encode()) for name, text in named.items()]
    return Envelope(key.encode(), [("content-type", content_type.encode()), *headers], value)


def header_map(headers: Iterable[tuple[str, bytes | str | None]] | Mapping[str, bytes] | None) -> dict[str, str]:
    """Headers by name as text, the last of a repeated name winning. Raises UnicodeDecodeError."""
    items = headers.items() if isinstance(headers, Mapping) else headers or ()
    return {k: (v if isinstance(v, str) else v.decode()) for k, v in items if v is not None}


def json_record(key: str, ce_type: str, record: msgspec.Struct) -> Envelope:
    """A record that people read: JSON of a typed struct."""
    return binary(key, ce_type, JSON, msgspec.json.encode(record))


def read_json(value: bytes | None, record_type: type[Record]) -> Record:
    """The typed record of a JSON value.

    Raises:
        IntegrityError: it does not match the schema.
    """
    try:
        return msgspec.json.decode(value or b"", type=record_type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"not a {record_type.__name__} record: {error}; check the topic's schema in topics/schemas"
        ) from error


def rfc3339(epoch_ms: int) -> str:
    """Unix epoch milliseconds as an RFC 3339 timestamp in UTC, as `ce_time` has it; years before 1970 or after 9999
    become its nearest end: a number in a record must not stop who reads it."""
    within_ms = min(max(epoch_ms, 0), _LAST_MS)
    return datetime.fromtimestamp(within_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
