"""The last value of every key of a compacted topic."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka.admin import NewTopic
from msgspec import Struct

from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka import client
from stream_interp.kafka.latest import read_latest
from stream_interp.settings import KafkaSettings

pytestmark = pytest.mark.integration


class Card(Struct):
    n: int


@pytest.fixture
def kafka(kafka_bootstrap, topic_prefix):
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix)
    admin, name = client.admin(settings), f"{topic_prefix}cards"
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(30)
    return settings


def write(kafka, *pairs):
    producer = client.producer(client.producer_config(kafka))
    for key, value in pairs:
        producer.produce(f"{kafka.topic_prefix}cards", key=key, value=value)
        producer.flush(30)


def test_the_newest_of_each_key_and_no_tombstones(kafka):
    write(kafka, ("a", b'{"n":1}'), ("b", b'{"n":2}'), ("c", b'{"n":3}'), ("a", b'{"n":4}'), ("b", None))
    assert read_latest(kafka, "cards", Card) == {"a": Card(4), "c": Card(3)}


def test_what_cannot_be_read_is_left_out_and_said_not_replaced_by_the_past(kafka, caplog):
    with caplog.at_level(logging.WARNING):
        write(kafka, ("a", b'{"n":1}'), ("b", b'{"n":2}'), ("a", b"\x00\xff"), (None, b'{"n":9}'))
        assert read_latest(kafka, "cards", Card) == {"b": Card(2), "": Card(9)}
    assert "left out 'a'" in caplog.text


def test_an_empty_topic_is_empty_and_a_missing_one_is_said(kafka):
    assert read_latest(kafka, "cards", Card) == {}
    with pytest.raises(DependencyUnreachable, match="topics apply"):
        read_latest(kafka, "none", Card)
