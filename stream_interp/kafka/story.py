"""The story of one incident, as `interp.alerts` still holds it."""

from __future__ import annotations

import logging
import math

from stream_interp.errors import IntegrityError
from stream_interp.kafka import client
from stream_interp.kafka.faults import Faults
from stream_interp.kafka.partitioner import partition_of
from stream_interp.kafka.read import end_offsets, read_topic_to_end
from stream_interp.kafka.subscribe import TOPIC
from stream_interp.records.alert import ENDS, Alert
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)


def read_lane_events(kafka: KafkaSettings, lane_id: str) -> list[Alert | Annotation]:
    """Every transition and annotation of one lane that retention has left, in log order.

    Raises:
        DependencyUnreachable: Kafka does not answer, refuses us, or has no such topic.
    """
    config, topic, faults = client.consumer_config(kafka, "story"), kafka.topic_prefix + TOPIC, Faults()
    consumer = client.consumer({**config, "error_cb": faults})
    try:
        partitions = len(end_offsets(consumer, topic, faults, client.address(kafka)))
    finally:
        consumer.close()
    events = []
    for message in read_topic_to_end(config, topic, [partition_of(lane_id, partitions)]):
        if message.key() != lane_id.encode():
            continue
        try:
            events.append(decode_event(message.value()))
        except IntegrityError as error:
            log.warning("alerts: left out offset %s: %s", message.offset(), error)
    return events


def story_of(events: list[Alert | Annotation], incident_id: str) -> list[Alert | Annotation]:
    """What belongs to an incident: its transitions, its acks, and what was said of its lane while it was open; once.

    Args:
        events: of its lane, in log order.
        incident_id: whole.
    """
    own = [event for event in events if isinstance(event, Alert) and event.incident_id == incident_id]
    since_ms = own[0].at_ms if own else 0
    until_ms = own[-1].at_ms if own and own[-1].transition in ENDS else math.inf
    return [
        event
        for event in {event.event_id: event for event in events}.values()
        if event.incident_id == incident_id
        or (isinstance(event, Annotation) and not event.incident_id and since_ms <= event.at_ms <= until_ms)
    ]
