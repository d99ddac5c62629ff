"""Transactions of a stage: what it writes and the input offsets it commits become visible together, or not at all.

librdkafka lacks KIP-890, so that a transaction call that timed out may still act later: then the producer is replaced,
and the new one's epoch fences whatever the old one left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_interp.errors import DependencyUnreachable, StreamInterpError
from stream_interp.kafka.client import TRANSACTION_TIMEOUT_MS, address, producer, producer_config
from stream_interp.kafka.faults import Faults
from stream_interp.records.envelope import Envelope
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)

CALL_S = TRANSACTION_TIMEOUT_MS / 1000
STUCK_S = CALL_S + 5.0  # a call that is not back by then never comes back
INIT_S = 60.0  # a broker that restarts is back by then
MAX_FAILURES = 5  # in a row: then it is no passing trouble
_RETRY_S = 0.1
_ANY_PARTITION = -1
_FATAL = (KafkaException, SystemError)  # the client's way to tell a fatal error where a delivery callback is due too


class CommittedOffset(NamedTuple):
    """The offset of an input partition to commit, and what travels with it (≤ 4,000 bytes)."""

    offset: int
    metadata: str = ""


class TransactionAborted(StreamInterpError):
    """Nothing of the transaction counts. State must be rebuilt from the committed offsets, then the work goes on."""


class Transactions:
    """The transactional producer of one process. One thread; one transaction at a time.

    Args:
        kafka: how to reach Kafka.
        stage: `encode` or `detect`. The transactional id, `{group_prefix}-{stage}-{instance}`, is stable for an
            instance, so that a restart ends its predecessor's transaction at once.

    Raises:
        DependencyUnreachable: Kafka does not answer, or refuses us.
    """

    def __init__(self, kafka: KafkaSettings, stage: str) -> None:
        self.transactional_id = f"{kafka.group_prefix}-{stage}-{kafka.instance}"
        self.committed = self.aborted = 0
        self._kafka, self._faults, self._failures = kafka, Faults(), 0
        self._producer = self._new()

    @contextmanager
    def open(self) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, aborted if the block raises.

        Raises:
            TransactionAborted: it failed.
            StreamInterpError: it failed for the fifth time in a row.
            DependencyUnreachable: Kafka does not come back.
        """
        transaction = Transaction(self._producer, self._kafka.topic_prefix, self._call)
        self._call(self._producer.begin_transaction)
        try:
            yield transaction
            self._call(lambda: bounded(lambda: self._producer.commit_transaction(CALL_S)), transaction)
        except TransactionAborted:
            raise
        except BaseException:
            self._abort()
            raise
        self.committed += 1
        self._failures = 0

    def close(self) -> None:
        """Gives up what is queued; committed transactions are safe."""
        with suppress(*_FATAL):  # a producer that was fenced refuses even this
            self._producer.purge()
            self._producer.flush(1.0)

    def _call(self, call: Callable[[], Any], transaction: Transaction | None = None) -> None:
        deadline_s = time.monotonic() + CALL_S
        while True:
            try:
                call()
                return
            except KafkaException as failure:
                error = failure.args[0]
                waits = error.retriable() and error.code() != KafkaError._TIMED_OUT
                if waits and time.monotonic() < deadline_s:
                    time.sleep(_RETRY_S)
                    continue
                self._undo(error, (transaction and transaction.failure) or error.str())
            except SystemError as failure:  # see _FATAL
                self._undo(
                    KafkaError(KafkaError._FATAL, fatal=True), (transaction and transaction.failure) or str(failure)
                )

    def _undo(self, error: KafkaError, why: str) -> None:
        self.aborted += 1
        self._failures += 1
        log.warning("transaction of %s aborted: %s", self.transactional_id, why)
        if error.txn_requires_abort() and not error.fatal():
            self._abort()
        else:
            self._replace()
        if self._failures >= MAX_FAILURES:
            raise StreamInterpError(
                f"{self._failures} transactions of {self.transactional_id} in a row failed, the last with: {why}. Is "
                "another process running with the same kafka.instance? Do the topics exist, and may this user write?"
            )
        raise TransactionAborted(f"transaction of {self.transactional_id} aborted: {why}; it is done again")

    def _abort(self) -> None:
        try:
            bounded(lambda: self._producer.abort_transaction(CALL_S))
        except KafkaException as failure:
            log.warning("abort of %s failed: %s", self.transactional_id, failure.args[0].str())
            self._replace()

    def _replace(self) -> None:
        self.close()
        self._producer = self._new()

    def _new(self) -> Any:
        config = producer_config(self._kafka, transactional_id=self.transactional_id, on_error=self._faults)
        deadline_s = time.monotonic() + INIT_S
        while True:
            fresh = producer(config)
            try:
                bounded(partial(fresh.init_transactions, CALL_S))
                return fresh
            except KafkaException as failure:
                fresh.poll(0)
                self._faults.raise_if_hopeless(address(self._kafka))
                error = failure.args[0]
                if time.monotonic() > deadline_s or not error.retriable():
                    next_step = f"May this user use the transactional id {self.transactional_id}?"
                    raise DependencyUnreachable("Kafka", address(self._kafka), error.str(), next_step) from failure


class Transaction:
    """What goes into one open transaction. Topics are named without `kafka.topic_prefix`."""

    def __init__(self, of: Any, topic_prefix: str, call: Callable[..., None]) -> None:
        self.failure = ""  # why Kafka refused a record, which says more than the failed commit
        self._producer, self._prefix, self._call = of, topic_prefix, call

    def send(
        self,
        topic: str,
        envelope: Envelope,
        partition: int | None = None,
        on_delivery: Callable[[Message], None] | None = None,
    ) -> None:
        """Queues a record; its key chooses the partition unless one is given."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failure = self.failure or f"{self._prefix}{topic}: {error.str()}"
            elif on_delivery is not None:
                on_delivery(message)

        def produce() -> None:
            headers: list[tuple[str, str | bytes | None]] = [*envelope.headers]
            self._producer.produce(
                self._prefix + topic,
                value=envelope.value,
                key=envelope.key,
                headers=headers,
                partition=_ANY_PARTITION if partition is None else partition,
                on_delivery=delivered,
            )

        while True:
            try:
                self._call(produce, self)
                break
            except BufferError:  # librdkafka's queue is full; what is in it leaves, or fails, by itself
                self._call(lambda: self._producer.poll(_RETRY_S), self)
        self._call(lambda: self._producer.poll(0), self)

    def place(self, topic: str, envelope: Envelope) -> tuple[int, int]:
        """Sends a record and waits for its (partition, offset). Raises TransactionAborted."""
        places: list[tuple[int, int]] = []
        self.send(topic, envelope, on_delivery=lambda m: places.append((m.partition() or 0, m.offset() or 0)))
        self._call(lambda: self._producer.flush(CALL_S), self)
        if not places:
            self._call(lambda: _refuse(self.failure or "no answer for a record"), self)
        return places[0]

    def commit_offsets(self, topic: str, offsets: Mapping[int, CommittedOffset], group: Consumer) -> None:
        """The input offsets, by partition, that become committed with this transaction."""
        partitions = [TopicPartition(self._prefix + topic, p, at.offset, at.metadata) for p, at in offsets.items()]
        member = group.consumer_group_metadata()
        send = partial(self._producer.send_offsets_to_transaction, partitions, member, CALL_S)
        self._call(lambda: bounded(send), self)


def bounded(call: Callable[[], Any], limit_s: float | None = None) -> None:
    """Makes a call in a thread of its own and waits for it, `STUCK_S` unless told.

    `send_offsets_to_transaction` may wait for ever, whatever timeout it was given, when the broker goes away in the
    middle of it (librdkafka issues 5456 and 5511). The thread and the producer of such a call are left behind.

    Raises:
        KafkaException: what the call raised; `_TIMED_OUT` if it is not back in time.
    """
    outcome = Future[Any]()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    wait_s = STUCK_S if limit_s is None else limit_s
    try:
        outcome.result(wait_s)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer from librdkafka in {wait_s:g} s")) from error


def _refuse(why: str) -> None:
    raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, why, txn_requires_abort=True))
