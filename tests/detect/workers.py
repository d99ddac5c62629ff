"""Real DETECT processes against a real Kafka; windows written by hand, and what lies on the topics afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message, TopicPartition

from stream_interp.kafka.client import admin, consumer_config, producer, producer_config
from stream_interp.kafka.messages import consumed
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.alert import Alert, decode_alert
from stream_interp.records.consumed import Consumed
from stream_interp.records.envelope import Envelope, header_map, read_json
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings
from tests.workers import Worker

QUICK = {
    "drift.clock": "requests", "drift.requests_per_week": "20000", "baseline.requests": "600",
    "checkpoint.interval_s": "1", "status.interval_s": "1",
    "kafka.librdkafka.session.timeout.ms": "6000",  # a killed one's partitions wait no longer for its successor
}  # fmt: skip


@dataclass
class Bench:
    """Topics of one test."""

    bootstrap: str
    prefix: str
    folder: Path
    redis_url: str = ""
    options: dict[str, str] = field(default_factory=lambda: dict(QUICK))

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix, group_prefix=self.prefix + "g")

    def apply_topics(self, partitions: int) -> None:
        apply_topics(self.kafka, {"interp.windows": partitions}, replication=1)

    def produce(self, topic: str, envelopes: Iterable[Envelope]) -> None:
        sender, failures = producer(producer_config(self.kafka)), list[str]()
        for envelope in envelopes:
            sender.produce(
                self.prefix + topic, value=envelope.value, key=envelope.key, headers=list(envelope.headers),
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )  # fmt: skip
            sender.poll(0)
        assert sender.flush(30) == 0
        assert failures == []

    def read(self, topic: str) -> list[Message]:
        return list(read_topic_to_end(consumer_config(self.kafka, "test"), self.prefix + topic))

    def forget(self, topic: str, below: int, partition: int = 0) -> None:
        """As retention would."""
        client = admin(self.kafka)  # its futures end only while it lives
        for future in client.delete_records([TopicPartition(self.prefix + topic, partition, below)]).values():
            future.result(timeout=30)

    def windows_log(self) -> list[Consumed]:
        return [consumed(message) for message in self.read("interp.windows")]

    def markers(self) -> list[Consumed]:
        return [r for r in self.windows_log() if header_map(r.headers)["ce_type"] == "interp.marker.v1"]

    def alerts(self) -> list[Alert]:
        return [decode_alert(message.value()) for message in self.read("interp.alerts")]

    def statuses(self) -> dict[str, Status]:
        """The last one of each lane, by hook."""
        read = (read_json(message.value(), Status) for message in self.read("interp.status"))
        return {status.lane.hook_name: status for status in read}

    @contextmanager
    def worker(self, instance: str = "0", **options: str) -> Iterator[Worker]:
        own = {name.replace("__", "."): value for name, value in options.items()}
        given = {"redis.url": self.redis_url, **self.options, **own}
        worker = Worker(["detect"], self.kafka, self.folder, instance, given)
        try:
            yield worker
        finally:
            worker.end()
