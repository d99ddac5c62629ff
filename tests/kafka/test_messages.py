from confluent_kafka import Message

from stream_interp.kafka.messages import consumed


class Poisoned:
    """What confluent-kafka 2.16 does with a header name that is not UTF-8."""

    def __init__(self) -> None:
        self._message = Message(topic="t", partition=1, offset=7, key=b"k", value=b"v", timestamp=(1, 5))

    def headers(self) -> None:
        raise SystemError("returned a result with an exception set")

    def __getattr__(self, name: str) -> object:
        return getattr(self._message, name)


def test_a_header_name_that_is_not_utf8_leaves_a_record_without_headers():
    record = consumed(Poisoned())  # type: ignore[arg-type]
    assert (record.topic, record.partition, record.offset, record.key, record.value) == ("t", 1, 7, b"k", b"v")
    assert record.headers == []
