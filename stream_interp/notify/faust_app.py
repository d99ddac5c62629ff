"""The Faust app that reads `interp.alerts`, `read_committed`.

Faust 0.15.3 reads uncommitted records outside its exactly-once mode, which is not to be used, waits 1.5 s in a fetch
and makes folders at its start; all three are overridden here. It writes nothing: deliveries have a producer of their
own, and its committed offsets are a convenience, never the truth about what was told.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka
import faust
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.app import BootStrategy
from faust.transport.drivers import aiokafka as driver

from stream_interp.kafka.client import address
from stream_interp.notify.login import login
from stream_interp.records.consumed import Consumed
from stream_interp.settings import KafkaSettings

FETCH_WAIT_MS = 100
MAX_FETCH_BYTES = 4 * 1024 * 1024
SESSION_TIMEOUT_MS = 10_000  # after a kill -9 the group waits this long for the dead member

Handle = Callable[[Consumed], Awaitable[None]]


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        self._assignor = RoundRobinPartitionAssignor
        assert isinstance(self.app, NotifyApp)
        return aiokafka.AIOKafkaConsumer(**self.app.reader)


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


class NotifyApp(faust.App):
    """Reads one topic in a consumer group.

    Args:
        kafka: how to reach Kafka.
        topic: without `kafka.topic_prefix`.
        handle: gets every record; what it raises ends the app.

    Raises:
        UsageError: a security setting that aiokafka has no counterpart of.
    """

    BootStrategy = _Boot

    def __init__(self, kafka: KafkaSettings, topic: str, handle: Handle) -> None:
        # While a broker is away aiokafka logs dozens of lines a second; librdkafka's clients beside it say it once.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        logging.getLogger(__name__).setLevel(
            logging.WARNING
        )  # Faust names its services after the module of their class
        group = f"{kafka.group_prefix}-notify"
        servers = address(kafka).split(",")
        self.reader = reader_settings(kafka, group)
        super().__init__(
            group,
            broker=[f"kafka://{server.strip()}" for server in servers],
            store="memory://",
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            stream_buffer_maxsize=256,
            web_enabled=False,
        )
        name = kafka.topic_prefix + topic
        records = self.topic(name, key_serializer="raw", value_serializer="raw")

        async def read(stream: Any) -> None:
            async for event in stream.events():
                message = event.message
                await handle(
                    Consumed(
                        name, message.partition, message.offset, round(message.timestamp * 1000), message.key, [],
                        message.value,
                    )
                )  # fmt: skip

        self.agent(records, name="notify")(read)

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""


def reader_settings(kafka: KafkaSettings, group: str) -> dict[str, Any]:
    """Arguments of `aiokafka.AIOKafkaConsumer`. Raises UsageError."""
    given = kafka.librdkafka
    return {
        "bootstrap_servers": [server.strip() for server in address(kafka).split(",")],
        "client_id": given.get("client.id", f"stream-interp-notify-{kafka.instance}"),
        "group_id": group,
        # After a kill -9 the next one on this host need not wait for the session's timeout.
        "group_instance_id": f"notify-{kafka.instance}-{socket.gethostname()}",
        "partition_assignment_strategy": [RoundRobinPartitionAssignor],
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "max_partition_fetch_bytes": MAX_FETCH_BYTES,
        "max_poll_records": 200,
        "session_timeout_ms": int(given.get("session.timeout.ms", SESSION_TIMEOUT_MS)),
        **login(kafka),
    }
