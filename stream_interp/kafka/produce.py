"""A producer for one topic, outside transactions: what the capture SDK puts its records on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream_interp.errors import DependencyUnreachable, UsageError
from stream_interp.kafka.client import address, admin, producer, producer_config
from stream_interp.records.envelope import Envelope
from stream_interp.settings import KafkaSettings

MESSAGE_TIMEOUT_MS = 30_000  # a record that Kafka has not taken by then holds memory that newer ones need
_SPARE_BYTES = 64 * 1024  # key, headers and framing of one record
_FATAL_DRAIN_S = 1.0

OnDone = Callable[[str | None], None]


def require_topic(kafka: KafkaSettings, topic: str, timeout_s: float = 5.0) -> None:
    """Returns if the topic (named without `kafka.topic_prefix`) exists.

    Raises:
        UsageError: it does not.
        DependencyUnreachable: Kafka does not answer.
    """
    name = kafka.topic_prefix + topic
    try:
        topics = admin(kafka).list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise DependencyUnreachable("Kafka", address(kafka), error.args[0].str(), "Is it still running?") from error
    if name not in topics:
        raise UsageError(f"Kafka at {address(kafka)} has no topic {name}; create it with `stream-interp topics apply`")


class TopicProducer:
    """Idempotent, `acks=all`; one thread at a time may use it.

    Args:
        kafka: how to reach Kafka; connecting happens in the background.
        topic: its name without `kafka.topic_prefix`.
        max_message_bytes: largest value.

    Raises:
        UsageError: a setting that librdkafka does not know.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, max_message_bytes: int) -> None:
        self.delivered = 0  # records that Kafka has acknowledged
        self._topic = kafka.topic_prefix + topic
        self._config = producer_config(
            kafka,
            message_timeout_ms=MESSAGE_TIMEOUT_MS,
            message_max_bytes=max(1_000_000, max_message_bytes + _SPARE_BYTES),
        )
        self._producer: Producer = producer(self._config)

    def produce(self, record: Envelope, on_done: OnDone) -> None:
        """Queues a record; `on_done(None)` or `on_done(error)` is called from a later `poll`.

        Raises:
            BufferError: librdkafka's queue is full; poll and try again.
        """

        def delivered(error: KafkaError | None, _: Message) -> None:
            self.delivered += error is None
            on_done(None if error is None else error.str())

        try:
            headers: list[tuple[str, str | bytes | None]] = [*record.headers]
            self._producer.produce(
                self._topic, value=record.value, key=record.key, headers=headers, on_delivery=delivered
            )
        except KafkaException as error:
            on_done(error.args[0].str())
            if error.args[0].fatal():
                self._replace()

    def poll(self, timeout_s: float) -> None:
        """Calls what is due."""
        self._producer.poll(timeout_s)

    def close(self) -> None:
        """Gives up what is still queued; to deliver it, poll until it is done."""
        self._producer.purge()
        self._producer.poll(0)

    def disown(self) -> None:
        """In a forked child: keeps librdkafka's handle for ever, because freeing it would end connections that the
        parent shares and wait for threads that only the parent has."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))

    def _replace(self) -> None:
        self._producer.purge()
        self._producer.flush(_FATAL_DRAIN_S)
        self._producer = producer(self._config)
