"""A process says every few seconds that it lives, outside its transactions."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream_interp.kafka.produce import TopicProducer
from stream_interp.records.heartbeat import Heartbeat, encode_heartbeat
from stream_interp.settings import KafkaSettings

TOPIC = "interp.heartbeat"
INTERVAL_S = 5.0
_MAX_BYTES = 900_000


class Heart:
    """Writes `interp.heartbeat`. A heartbeat that Kafka does not take is lost; the next one says more.

    Args:
        kafka: how to reach Kafka.
        describe: the heartbeat of now.
    """

    def __init__(self, kafka: KafkaSettings, describe: Callable[[], Heartbeat]) -> None:
        self._producer, self._describe, self._due_s = TopicProducer(kafka, TOPIC, _MAX_BYTES), describe, 0.0

    def beat_if_due(self) -> None:
        """Call it at least once a second."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + INTERVAL_S
            try:
                self._producer.produce(encode_heartbeat(self._describe()), lambda _: None)
            except BufferError:
                return
        self._producer.poll(0)

    def close(self) -> None:
        """Drops what Kafka has not taken."""
        self._producer.close()
