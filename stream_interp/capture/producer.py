"""`SnapshotProducer`: activations of a running model → `interp.activations`, never in the model's way."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from stream_interp.capture.outbox import REQUEST_OVERHEAD_BYTES, Outbox, Parcel, ProducerCounts
from stream_interp.capture.parcels import Origin
from stream_interp.capture.tensors import nbytes, own, with_batch_axis
from stream_interp.capture.worker import Transport, Worker
from stream_interp.settings import KafkaSettings

if TYPE_CHECKING:
    from typing import Self

    from stream_interp.capture.tensors import ArrayLike

TOPIC = "interp.activations"
MIB = 1024 * 1024
MAX_MESSAGE_BYTES = 900_000  # below every default of max.message.bytes, with room for headers

_AT_EXIT_S = 5.0


class SnapshotProducer:
    """Sends snapshots from a model's threads without ever blocking them or raising into them.

    `send` copies the activations onto a byte-bounded queue; a daemon thread encodes, chunks and produces them. What
    finds no room is dropped and counted (`counts`), logged at most once in 10 s. Kafka may be down at any time.
    Make one per process: in a forked child every `send` is dropped as `forked`.

    Args:
        bootstrap: Kafka's address.
        model_id: names the model in every record, with `model_revision` and `tenant`.
        topic_prefix: put before `interp.activations`.
        max_queue_bytes: bound on activations that Kafka has not acknowledged yet.
        max_message_bytes: largest record value; longer requests become several chunks.
        librdkafka: client settings passed through, such as `security.protocol`.
        clock: Unix epoch seconds, for the capture time in the records.
        transport: in place of Kafka, for tests.

    Raises:
        UsageError: a name that no consumer would accept, or an unknown librdkafka setting.
    """

    def __init__(
        self,
        bootstrap: str = KafkaSettings().bootstrap,
        *,
        model_id: str,
        model_revision: str = "unversioned",
        tenant: str = "default",
        topic_prefix: str = "",
        max_queue_bytes: int = 64 * MIB,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        librdkafka: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        transport: Transport | None = None,
    ) -> None:
        origin = Origin(tenant=tenant, model_id=model_id, model_revision=model_revision)
        kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=topic_prefix, librdkafka=dict(librdkafka or {}))
        self._transport = transport or _kafka_transport(kafka, max_message_bytes)
        self._outbox, self._clock = Outbox(max_queue_bytes), clock
        self._worker = Worker(self._outbox, self._transport, origin, max_message_bytes)
        self._worker.start()
        atexit.register(self.close, _AT_EXIT_S)
        _alive.add(self)

    @property
    def counts(self) -> ProducerCounts:
        """What was sent, delivered and dropped so far."""
        return self._outbox.counts()

    def send(
        self,
        hook_name: str,
        request_id: str,
        acts: ArrayLike,
        *,
        acts_out: ArrayLike | None = None,
        positions: ArrayLike | Sequence[int] | None = None,
        special_mask: ArrayLike | Sequence[bool] | None = None,
        group_key: str = "",
        segment: str = "",
        timeout_s: float = 0.0,
    ) -> bool:
        """Queues the activations of one request; False if they were dropped. Never raises.

        Args:
            hook_name: where in the model they come from.
            request_id: unique per request, the same for all its hooks.
            acts: [n_tokens, d_in] torch or numpy, float16, bfloat16 (numpy: its uint16 bits) or float32; copied.
            acts_out: [n_tokens, d_out], for transcoders.
            positions: [n_tokens] token positions in the request.
            special_mask: [n_tokens] true for tokens that are not counted.
            group_key: the same for requests that hang together, of one session or customer, so that their baseline
                knows by how much they tell less than independent ones; empty: of none.
            segment: the part of the traffic that it belongs to (a product, a country), so that a change of the mix is
                told as one; of few names, which alerts show; empty: it names none.
            timeout_s: how long to wait for room; 0 never blocks.
        """
        named = {"acts": acts, "acts_out": acts_out, "positions": positions, "special_mask": special_mask}
        try:
            batch = {name: with_batch_axis(array) for name, array in named.items() if array is not None}
        except Exception as error:
            self.drop("encode_error", repr(error))
            return False
        belongs = {"group_keys": [group_key], "segments": [segment]}
        return self.send_batch(hook_name, [str(request_id)], batch, **belongs, timeout_s=timeout_s)

    def send_batch(
        self,
        hook_name: str,
        request_ids: Sequence[str],
        arrays: Mapping[str, ArrayLike],
        *,
        group_keys: Sequence[str] | None = None,
        segments: Sequence[str] | None = None,
        timeout_s: float = 0.0,
    ) -> bool:
        """Queues one hook's activations of B requests with one copy; False if they were dropped. Never raises.

        Args:
            hook_name: where in the model they come from.
            request_ids: [B], each unique.
            arrays: `acts [B, T, d_in]`, and as wanted `acts_out [B, T, d_out]`, `positions [B, T]`,
                `special_mask [B, T]`, `keep [B, T]` bool (false: padding, not sent).
            group_keys, segments: [B], as `send`; default: of none.
            timeout_s: how long to wait for room; 0 never blocks.
        """
        try:
            cost = sum(nbytes(array) for array in arrays.values()) + len(request_ids) * REQUEST_OVERHEAD_BYTES
            keys, names = (_texts(given, len(request_ids)) for given in (group_keys, segments))
            if not len(request_ids) == len(keys) == len(names):
                raise ValueError(f"{len(request_ids)} requests, {len(keys)} group keys, {len(names)} segments")
            parcel = Parcel(hook_name, list(request_ids), keys, names, int(self._clock() * 1000), cost)
        except Exception as error:
            self.drop("encode_error", repr(error))
            return False
        if not self._outbox.reserve(parcel, timeout_s):
            return False
        try:
            parcel.arrays.update({name: own(array) for name, array in arrays.items()})
        except Exception as error:  # out of device memory, say
            self._outbox.finish(parcel, "encode_error", repr(error), len(parcel.request_ids))
            return False
        self._outbox.put(parcel)
        return True

    def drop(self, reason: str, detail: str = "", requests: int = 1) -> None:
        """Counts requests that were lost before they could be sent, as `instrument` does."""
        self._outbox.drop(reason, detail, requests)

    def flush(self, timeout_s: float = 10.0) -> int:
        """Waits until everything sent so far is delivered or dropped; the number still pending after `timeout_s`."""
        return self._outbox.wait_empty(timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Delivers what it can within `timeout_s`, counts the rest as `closed` and ends the worker. Idempotent."""
        deadline_s = time.monotonic() + timeout_s
        self._outbox.refuse("closed")
        self._outbox.wait_empty(timeout_s)
        self._outbox.stop("closed")
        if self._worker.is_alive():
            self._worker.join(max(0.1, deadline_s - time.monotonic()))
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork_in_child(self) -> None:
        self._transport.disown()
        self._outbox = Outbox(0)
        self._outbox.stop("forked")


def _kafka_transport(kafka: KafkaSettings, max_message_bytes: int) -> Transport:
    from stream_interp.kafka.produce import TopicProducer  # keeps `import stream_interp.capture` light

    return TopicProducer(kafka, TOPIC, max_message_bytes)


def _texts(given: Sequence[str] | None, n: int) -> list[str]:
    """[n]; None is as empty as for `instrument`, not a name."""
    return [""] * n if given is None else ["" if name is None else str(name) for name in given]


_alive: weakref.WeakSet[SnapshotProducer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for producer in _alive:
        producer._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
