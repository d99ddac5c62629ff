"""What was done with each event at each sink: `interp.deliveries`, read whole and written after the fact."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from functools import partial

from stream_interp.kafka.latest import read_latest
from stream_interp.kafka.produce import TopicProducer
from stream_interp.records.delivery import Delivery, encode_delivery, forget_delivery
from stream_interp.records.dlq import DeadLetter, encode_dead_letter
from stream_interp.records.envelope import Envelope
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

DELIVERIES, DLQ = "interp.deliveries", "interp.dlq"
BEGIN = "begin"
_MAX_BYTES = 900_000
_PUMP_S = 0.005
_AGAIN_S = 1.0


class Ledger:
    """All deliveries in memory, and producers for new ones. One event loop.

    Args:
        kafka: how to reach Kafka.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._known: dict[tuple[str, str], Delivery] = {}
        self._deliveries = TopicProducer(kafka, DELIVERIES, _MAX_BYTES)
        self._letters = TopicProducer(kafka, DLQ, _MAX_BYTES)

    def read(self) -> None:
        """Everything on the topic; blocks. Raises DependencyUnreachable."""
        latest = read_latest(self._kafka, DELIVERIES, Delivery).values()
        self._known = {(delivery.sink, delivery.event_id): delivery for delivery in latest}

    def find(self, sink: str, event_id: str) -> Delivery | None:
        """What was done with an event."""
        return self._known.get((sink, event_id))

    def of(self, outcome: str) -> Iterator[Delivery]:
        """All with this outcome."""
        return (delivery for delivery in self._known.values() if delivery.outcome == outcome)

    async def record(self, deliveries: Iterable[Delivery]) -> None:
        """Returns once Kafka has them all, however long that takes."""
        new = list(deliveries)
        self._known |= {(delivery.sink, delivery.event_id): delivery for delivery in new}
        await self._write(self._deliveries, list(map(encode_delivery, new)))

    async def forget_before(self, at_ms: int) -> None:
        """Takes off the topic what was done before that, Unix epoch ms; where sinks began stays."""
        old = {key: d for key, d in self._known.items() if d.outcome != "begun" and d.at_ms < at_ms}
        for key in old:
            del self._known[key]
        if old:
            log.info("%s: forgets %d deliveries of alerts that are no more", DELIVERIES, len(old))
        await self._write(self._deliveries, list(map(forget_delivery, old.values())))

    async def set_aside(self, letter: DeadLetter, key: bytes) -> None:
        """A dead letter; returns once Kafka has it."""
        await self._write(self._letters, [encode_dead_letter(letter, key)])

    def close(self) -> None:
        """Drops what Kafka has not taken."""
        self._deliveries.close()
        self._letters.close()

    async def _write(self, producer: TopicProducer, records: list[Envelope]) -> None:
        while failed := await _not_written(producer, records):
            log.warning("Kafka did not take %d records of deliveries; trying again", len(failed))
            await asyncio.sleep(_AGAIN_S)
            records = failed


async def _not_written(producer: TopicProducer, records: list[Envelope]) -> list[Envelope]:
    """Those that Kafka refused, or that found no room."""
    errors: dict[int, str | None] = {}
    for number, record in enumerate(records):
        try:
            producer.produce(record, partial(errors.__setitem__, number))
        except BufferError as error:
            errors[number] = str(error)
    while len(errors) < len(records):
        producer.poll(0)
        await asyncio.sleep(_PUMP_S)
    return [records[number] for number, error in sorted(errors.items()) if error is not None]
