"""`interp.dlq`: a record that could not be counted, with why and where. The payload is redacted by default."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from stream_interp.records.envelope import JSON, Envelope, binary

CE_TYPE = "interp.dead_letter.v1"

REASONS = {
    "not_cloudevent": "the ce_ headers of CloudEvents binary mode are missing",
    "wrong_type": "another ce_type or schema version",
    "wrong_content_type": "content-type is not application/vnd.safetensors",
    "missing_metadata": "a header for model, hook, request id, chunk or token count is missing",
    "bad_metadata": "a header that cannot be read: not UTF-8, not a number, too long, chunk outside the request",
    "key_mismatch": "the record key is not the request id, so the chunks of a request would be spread",
    "empty": "no value, or no tokens",
    "not_safetensors": "malformed or truncated safetensors",
    "oversized": "larger than request.max_bytes",
    "missing_acts": "no tensor named acts",
    "wrong_dtype": "not float16, bfloat16 or float32",
    "wrong_shape": "acts is not [n_tokens, d_in], or wider than 65,536",
    "wrong_d_in": "d_in differs from the SAE's or the lane's",
    "length_mismatch": "positions, special_mask, acts_out or the token count disagree with acts",
    "non_finite": "NaN, infinity, or so large that its square is not finite",
    "inconsistent_chunks": "a chunk that contradicts the other chunks of its request",
    "unknown_site": "no [[sites]] entry and unknown_sites = reject",
    "undelivered": "NOTIFY gave up the delivery of this alert at a sink",
}


class DeadLetter(Struct, frozen=True, kw_only=True):
    """Raw key and headers in base64 (they may be anything), the reason, and where the record lies."""

    schema_version: Literal[1] = 1
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key_base64: str
    headers_base64: list[tuple[str, str]]
    value_bytes: int
    value_base64: str | None = None  # only with dlq.payload = kept


def base64_headers(headers: Iterable[tuple[str, bytes | str | None]] | None) -> list[tuple[str, str]]:
    """Headers as JSON can hold them."""
    raw = ((k, v.encode() if isinstance(v, str) else v or b"") for k, v in headers or ())
    return [(k, base64.b64encode(v).decode()) for k, v in raw]


def encode_dead_letter(letter: DeadLetter, key: bytes | None) -> Envelope:
    """The dead-letter record under the original key."""
    envelope = binary("", CE_TYPE, JSON, msgspec.json.encode(letter), reason=letter.reason)
    return envelope._replace(key=key or b"")
