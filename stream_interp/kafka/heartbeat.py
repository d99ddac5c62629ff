"""A process says every few seconds that it lives, outside its transactions."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.kafka.follow import TopicFollower
from stream_interp.kafka.produce import TopicProducer
from stream_interp.records.envelope import read_json
from stream_interp.records.heartbeat import Heartbeat, encode_heartbeat
from stream_interp.settings import KafkaSettings

TOPIC = "interp.heartbeat"
INTERVAL_S = 5.0
_MAX_BYTES = 900_000
_FAREWELL_S = 1.0
_STALE_MS = 60_000


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

    def farewell(self) -> None:
        """The last one, of a process that was asked to end, so that its silence alarms nobody at once."""
        last = structs.replace(self._describe(), stopping=True)
        with suppress(BufferError):
            self._producer.produce(encode_heartbeat(last), lambda _: None)
            self._producer.poll(_FAREWELL_S)

    def close(self) -> None:
        """Drops what Kafka has not taken."""
        self._producer.close()


class FailingSinks:
    """Which sinks NOTIFY says are failing, by its heartbeats.

    Args:
        kafka: how to reach Kafka.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._follower, self._newest = TopicFollower(kafka, TOPIC), dict[str, Heartbeat]()

    def now(self, now_ms: int) -> list[str]:
        """Sorted. A heartbeat older than a minute no longer speaks for a living process."""
        for record in self._follower.poll():
            with suppress(IntegrityError):  # anybody may write there
                heartbeat = read_json(record.value, Heartbeat)
                if heartbeat.kind == "notify":
                    self._newest[heartbeat.process_id] = heartbeat
        self._newest = {p: h for p, h in self._newest.items() if h.as_of_ms > now_ms - _STALE_MS and not h.stopping}
        return sorted({sink for heartbeat in self._newest.values() for sink in heartbeat.sinks_failing})

    def close(self) -> None:
        """Ends it."""
        self._follower.close()
