"""A real NOTIFY process against a real Kafka, alerts written by hand, and a receiver of webhooks that can be down."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from stream_interp.kafka.client import consumer_config, producer, producer_config
from stream_interp.kafka.latest import read_latest
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.kafka.topics import apply_topics
from stream_interp.records.delivery import Delivery
from stream_interp.records.envelope import Envelope
from stream_interp.settings import KafkaSettings
from tests.workers import Worker


class Call(NamedTuple):
    """One request that a receiver answered with 200."""

    at_s: float
    webhook_id: str
    body: dict[str, Any]

    @property
    def event_ids(self) -> list[str]:
        ids: list[str] = self.body["data"]["event_ids"]
        return ids


class Receiver:
    """Answers 200 while it is up, 503 while it is down."""

    def __init__(self) -> None:
        self.up, self.refused, self.calls = True, 0, list[Call]()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at_s = time.time()
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                if receiver.up:
                    receiver.calls.append(Call(at_s, self.headers["webhook-id"], json.loads(content)))
                else:
                    receiver.refused += 1
                self._answer(200 if receiver.up else 503)

            def do_GET(self) -> None:
                receiver.calls.append(Call(time.time(), "ping", {}))
                self._answer(200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    @property
    def ids(self) -> list[str]:
        return [call.webhook_id for call in self.calls]

    def refused_more_than(self, count: int) -> bool:
        return self.refused > count

    def took_more_than(self, count: int) -> bool:
        return len(self.calls) > count

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    try:
        yield one
    finally:
        one.close()


@dataclass
class Bench:
    """Topics of one test, and NOTIFY on them."""

    bootstrap: str
    prefix: str
    folder: Path
    options: dict[str, str] = field(default_factory=lambda: {"kafka.librdkafka.session.timeout.ms": "6000"})

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix, group_prefix=self.prefix + "g")

    def apply_topics(self) -> None:
        apply_topics(self.kafka, {}, replication=1)

    def produce(self, topic: str, envelopes: Iterable[Envelope], **config: object) -> None:
        sender, failures = producer(producer_config(self.kafka, **config)), list[str]()
        for envelope in envelopes:
            sender.produce(
                self.prefix + topic, value=envelope.value, key=envelope.key, headers=list(envelope.headers),
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )  # fmt: skip
        assert sender.flush(30) == 0
        assert failures == []

    def deliveries(self) -> dict[str, Delivery]:
        return read_latest(self.kafka, "interp.deliveries", Delivery)

    def values(self, topic: str) -> list[bytes]:
        messages = read_topic_to_end(consumer_config(self.kafka, "test"), self.prefix + topic)
        return [message.value() or b"" for message in messages]

    def sinks(self, *receivers: Receiver, **more: object) -> str:
        """`notify.sinks` with a webhook for each receiver: hook0, hook1, …"""
        secret = self.folder / "secret"
        secret.write_text("whsec_" + base64.b64encode(b"x" * 32).decode() + "\n")
        return json.dumps(
            [
                {"name": f"hook{n}", "type": "webhook", "url": one.url, "secret_file": str(secret),
                 "allow": ["127.0.0.1"], **more}
                for n, one in enumerate(receivers)
            ]
        )  # fmt: skip

    @contextmanager
    def worker(self, sinks: str, instance: str = "0", **options: str) -> Iterator[Worker]:
        own = {name.replace("__", "."): value for name, value in options.items()}
        worker = Worker(["notify"], self.kafka, self.folder, instance, {**self.options, "notify.sinks": sinks, **own})
        try:
            yield worker
        finally:
            worker.end()
