"""Whether Faust's consumer moves: a consumer that stalls in silence is the worst of its open defects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from stream_interp.errors import DependencyUnreachable, StreamInterpError
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.read import end_offsets
from stream_interp.settings import KafkaSettings

CHECK_S = 10.0
FRESH_S = 30.0  # a check older than this vouches for nothing
STALL_S = 60.0  # behind for so long without a step: a supervisor must start us again

Positions = Callable[[], Awaitable[Mapping[int, int]]]


class Progress:
    """Compares where the consumer stands with the end of the log.

    Args:
        kafka: how to reach Kafka.
        topic: without `kafka.topic_prefix`.
        positions: partition → next offset that the consumer will read, of the partitions that are ours.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, positions: Positions) -> None:
        self._topic, self._address, self._positions = kafka.topic_prefix + topic, client.address(kafka), positions
        self._faults = Faults()
        self._consumer = client.consumer(client.consumer_config(kafka, "notify-ends", on_error=self._faults))
        self._checked_s, self._moved_s = 0.0, time.monotonic()
        self._stands: dict[int, int] = {}
        self.lags: dict[int, int] = {}

    @property
    def healthy(self) -> bool:
        """The latest check is fresh and found no stall."""
        now_s = time.monotonic()
        return now_s - self._checked_s < FRESH_S and now_s - self._moved_s < FRESH_S

    async def watch(self) -> None:
        """Checks for ever. Raises StreamInterpError where waiting will not help."""
        while True:
            await self._check()
            if self.lags and time.monotonic() - self._moved_s > STALL_S:
                raise StreamInterpError(
                    f"notify stands still at {self._stands} of {self._topic}, {self.lags} records behind; "
                    "start it again, and report it if it comes back"
                )
            await asyncio.sleep(CHECK_S)

    async def _check(self) -> None:
        stands = dict(await self._positions())
        try:
            ends = await asyncio.to_thread(
                end_offsets, self._consumer, self._topic, self._faults, self._address, sorted(stands)
            )
        except DependencyUnreachable:
            return  # not fresh any more: that is told by the dead-man alone
        now_s = time.monotonic()
        self.lags = {p: ends[p] - stands[p] for p in stands if ends[p] > stands[p]}
        if not self.lags or stands != self._stands:
            self._moved_s = now_s
        self._checked_s, self._stands = now_s, stands

    def close(self) -> None:
        """Ends it."""
        self._consumer.close()
