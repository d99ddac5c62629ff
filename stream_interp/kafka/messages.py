"""librdkafka's messages in our own words."""

from __future__ import annotations

from confluent_kafka import Message

from stream_interp.records.consumed import Consumed


def consumed(message: Message) -> Consumed:
    """The record in a message that is no error."""
    return Consumed(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        message.key(),
        _headers(message),
        message.value(),
    )


def _headers(message: Message) -> list[tuple[str, bytes | str | None]]:
    try:
        return message.headers() or []  # type: ignore[return-value]
    except SystemError:  # a name that is not UTF-8: a poison pill that any producer can send; never ask twice
        return []
