"""The daemon thread between the outbox and Kafka: encodes, chunks, produces, and says what was dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from stream_interp.capture.outbox import Outbox, Parcel
from stream_interp.capture.parcels import HostArrays, Origin, host_arrays, request_records
from stream_interp.records.envelope import Envelope

_log = logging.getLogger("stream_interp.capture")
_LOG_EVERY_S = 10.0
_BUSY_POLL_S, _IDLE_POLL_S = 0.02, 1.0
_YIELD_S = 1e-6  # between requests: else a model thread waits up to Python's 5 ms switch interval for the interpreter

OnDone = Callable[[str | None], None]


class Transport(Protocol):
    """What records are put on: `stream_interp.kafka.produce.TopicProducer` outside tests. Used by the worker only."""

    def produce(self, record: Envelope, on_done: OnDone) -> None:
        """Queues a record; `on_done` gets None or the error, once. Raises BufferError when full."""

    def poll(self, timeout_s: float) -> None:
        """Calls what is due."""

    def close(self) -> None:
        """Gives up what is queued."""

    def disown(self) -> None:
        """Called in a forked child, which must neither use nor free it."""


class Worker(threading.Thread):
    """Takes parcels from the outbox until it is stopped, and accounts for each of their requests."""

    def __init__(self, outbox: Outbox, transport: Transport, origin: Origin, max_message_bytes: int) -> None:
        super().__init__(name="snapshot-producer", daemon=True)
        self._outbox, self._transport = outbox, transport
        self._origin, self._max_message_bytes = origin, max_message_bytes
        self._logged_at_s, self._logged_dropped = float("-inf"), 0

    def run(self) -> None:
        """Until the outbox is stopped."""
        while not self._outbox.stopped:
            parcel = self._outbox.take(_BUSY_POLL_S, _IDLE_POLL_S)
            try:
                if parcel is not None:
                    self._publish(parcel)
                self._transport.poll(0)
            except Exception:
                _log.exception("an error that should not happen; the snapshot worker goes on")
                time.sleep(_BUSY_POLL_S)
            self._log_drops(_LOG_EVERY_S)
        self._transport.close()
        self._log_drops(every_s=0)

    def _publish(self, parcel: Parcel) -> None:
        try:
            arrays = host_arrays(parcel)
        except Exception as error:
            self._outbox.finish(parcel, "encode_error", repr(error), len(parcel.request_ids))
            return
        for row in range(len(parcel.request_ids)):
            self._publish_request(parcel, arrays, row)
            time.sleep(_YIELD_S)

    def _publish_request(self, parcel: Parcel, arrays: HostArrays, row: int) -> None:
        try:
            records = request_records(parcel, arrays, row, self._origin, self._max_message_bytes)
        except Exception as error:
            self._outbox.finish(parcel, "encode_error", str(error) or repr(error))
            return
        outcomes: list[str | None] = []
        for record in records:
            self._produce(record, partial(self._on_chunk_done, parcel, outcomes, len(records)))

    def _produce(self, record: Envelope, on_done: OnDone) -> None:
        while not self._outbox.stopped:
            try:
                self._transport.produce(record, on_done)
            except BufferError:
                self._transport.poll(_BUSY_POLL_S)
            else:
                return

    def _on_chunk_done(self, parcel: Parcel, outcomes: list[str | None], chunks: int, error: str | None) -> None:
        outcomes.append(error)
        if len(outcomes) == chunks:
            errors = [outcome for outcome in outcomes if outcome is not None]
            self._outbox.finish(parcel, "delivery_failed" if errors else "", errors[0] if errors else "")

    def _log_drops(self, every_s: float) -> None:
        counts, now_s = self._outbox.counts(), time.monotonic()
        dropped = sum(counts.dropped.values())
        if dropped == self._logged_dropped or now_s - self._logged_at_s < every_s:
            return
        self._logged_at_s, self._logged_dropped = now_s, dropped
        why = f"; last error: {counts.last_error}" if counts.last_error else ""
        _log.warning(
            "%s: %d of %d snapshots dropped so far, by reason %s%s",
            self._origin.model_id,
            dropped,
            counts.sent,
            counts.dropped,
            why,
        )
