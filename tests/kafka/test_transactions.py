"""Transactions on librdkafka's mock cluster."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from stream_interp.kafka import client, transactions
from stream_interp.kafka.transactions import CommittedOffset, TransactionAborted, Transactions, bounded
from stream_interp.records.envelope import Envelope
from stream_interp.settings import KafkaSettings

MOCK = KafkaSettings(bootstrap="mock", librdkafka={"test.mock.num.brokers": "1"})


class Stuck(Producer):
    """Never comes back from `send_offsets_to_transaction` while a broker is away, as librdkafka 2.16."""

    away = threading.Event()
    never = threading.Event()

    def send_offsets_to_transaction(self, *args: Any) -> None:
        if self.away.is_set():
            self.never.wait()
        super().send_offsets_to_transaction(*args)


def test_a_call_that_never_comes_back_aborts_and_the_next_transaction_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "producer", Stuck)
    monkeypatch.setattr(transactions, "STUCK_S", 2.0)
    group = client.consumer(client.consumer_config(MOCK, "t"))
    of = Transactions(MOCK, "t")
    record = Envelope(b"k", [], b"v")

    def commit() -> None:
        with of.open() as transaction:
            transaction.send("out", record)
            transaction.commit_offsets("out", {0: CommittedOffset(1)}, group)

    Stuck.away.set()
    started_s = time.monotonic()
    try:
        with pytest.raises(TransactionAborted, match="no answer from librdkafka in 2 s"):
            commit()
        assert time.monotonic() - started_s < 10
    finally:
        Stuck.away.clear()
        Stuck.never.set()
    commit()
    assert (of.committed, of.aborted) == (1, 1)
    of.close()


def test_bounded_hands_on_what_the_call_raised() -> None:
    def refused() -> None:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    with pytest.raises(KafkaException) as raised:
        bounded(refused)
    assert raised.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
