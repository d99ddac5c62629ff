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
        message.headers() or [],  # type: ignore[arg-type]
        message.value(),
    )
