"""Kafka and Valkey together."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from stream_interp.embedded.kafka import EmbeddedKafka
from stream_interp.embedded.valkey import EmbeddedValkey
from stream_interp.errors import DependencyUnreachable


class EmbeddedPair:
    """Both servers on 127.0.0.1; arguments as of `EmbeddedKafka` and `EmbeddedValkey`."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        nodes: int = 1,
        kafka_port: int | None = None,
        redis_port: int | None = None,
    ) -> None:
        self.valkey = EmbeddedValkey(data_dir, port=redis_port)
        self.kafka = EmbeddedKafka(data_dir, nodes=nodes, port=kafka_port)

    @property
    def bootstrap(self) -> str:
        """Kafka's addresses."""
        return self.kafka.bootstrap

    @property
    def redis_url(self) -> str:
        """Valkey's address."""
        return self.valkey.url

    def start(self) -> None:
        """Start both; return when both answer. Raises what their `start` raises."""
        try:
            self.valkey.start()
            self.kafka.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both and remove temporary data."""
        try:
            self.kafka.stop()
        finally:
            self.valkey.stop()

    def ended(self) -> DependencyUnreachable | None:
        """The error to raise if a server ended by itself."""
        return self.kafka.ended() or self.valkey.ended()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
