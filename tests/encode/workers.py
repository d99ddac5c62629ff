"""Real ENCODE processes against a real Kafka, and what lies on the topics afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from confluent_kafka import Message

from stream_interp.kafka.client import consumer_config, producer, producer_config
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.chunks import Joiner
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import Envelope, header_map, read_json
from stream_interp.records.window import Window, decode_window
from stream_interp.sae import save_saelens
from stream_interp.settings import KafkaSettings, Settings
from tests.workers import Worker

D_IN, D_SAE = 6, 24


def integer_sae(folder: Path) -> None:
    """Weights and biases are small integers, so that every sum of activations is exact in any order."""
    rng = torch.Generator().manual_seed(1)
    W_enc = torch.randint(-2, 3, (D_IN, D_SAE), generator=rng).float()
    W_dec = torch.randint(-2, 3, (D_SAE, D_IN), generator=rng).float()
    b_enc = torch.randint(-9, 1, (D_SAE,), generator=rng).float()
    save_saelens(folder, W_enc, b_enc, W_dec, torch.zeros(D_IN), apply_b_dec_to_input=False)


@dataclass
class Bench:
    """Topics of one test."""

    bootstrap: str
    prefix: str
    folder: Path
    options: dict[str, str] = field(default_factory=dict)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix, group_prefix=self.prefix + "g")

    @property
    def settings(self) -> Settings:
        return Settings(kafka=self.kafka)

    def apply_topics(self, partitions: int) -> None:
        apply_topics(self.kafka, {"interp.activations": partitions}, replication=1)

    def produce(self, topic: str, envelopes: Iterable[Envelope | tuple[Envelope, int]]) -> None:
        sender = producer(producer_config(self.kafka))
        failures: list[str] = []
        for item in envelopes:
            envelope = item if isinstance(item, Envelope) else item[0]
            sender.produce(
                self.prefix + topic, value=envelope.value, key=envelope.key, headers=list(envelope.headers),
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )  # fmt: skip
            sender.poll(0)
        assert sender.flush(30) == 0
        assert failures == []

    def read(self, topic: str) -> list[Message]:
        return list(read_topic_to_end(consumer_config(self.kafka, "test"), self.prefix + topic))

    def cuts(self) -> dict[int, list[Cut]]:
        found: dict[int, list[Cut]] = {}
        for message in self.read("interp.cuts"):
            cut = read_json(message.value(), Cut)
            assert cut.topic == self.prefix + "interp.activations"
            found.setdefault(cut.partition, []).append(cut)
        return found

    def windows(self) -> list[Window]:
        joiner, windows = Joiner(), []
        for m in self.read("interp.windows"):
            h = header_map(m.headers())
            whole = joiner.add(h["ce_window"], int(h["ce_chunk"]), int(h["ce_chunks"]), m.value(), m.offset())
            if whole is not None:
                windows.append(decode_window(whole))
        assert list(joiner.incomplete()) == []
        return windows

    def covered(self) -> int:
        """Records of the input that closed cuts account for."""
        return sum(cut.records for cuts in self.cuts().values() for cut in cuts)

    @contextmanager
    def worker(self, instance: str = "0", **options: str) -> Iterator[Worker]:
        given = {**self.options, **options}
        sae = given.pop("sae", "")
        worker = Worker(["encode", *(["--sae", sae] if sae else [])], self.kafka, self.folder, instance, given)
        try:
            yield worker
        finally:
            worker.end()


def heartbeats(bench: Bench) -> list[dict[str, object]]:
    return [json.loads(m.value()) for m in bench.read("interp.heartbeat")]
