"""The AsyncAPI 3 document of all topics, from their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stream_interp.kafka.topic_plan import Message, Topic


def asyncapi(topics: Sequence[Topic]) -> dict[str, Any]:
    """The document, as YAML or JSON would hold it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stream_interp topics",
            "version": "1",
            "description": "What lies on Kafka between a model and the people who rely on its interpretability.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {f"{topic.name}.write": _write(topic) for topic in topics},
        "components": {"messages": {_id(m): _message(m) for topic in topics for m in topic.records}},
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"{topic.description.strip()} Key: {topic.key}.",
        "messages": {_id(m): {"$ref": f"#/components/messages/{_id(m)}"} for m in topic.records},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication,
                "topicConfiguration": _configuration(topic),
                "bindingVersion": "0.5.0",
            }
        },
    }


def _configuration(topic: Topic) -> dict[str, Any]:
    known = {"retention.ms", "delete.retention.ms", "max.message.bytes"}  # all that the binding has room for
    numbers = {name: value for name, value in topic.config.items() if name in known}
    return {"cleanup.policy": [topic.config["cleanup.policy"]], **numbers}


def _write(topic: Topic) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{topic.name}"}, "summary": f"written by {topic.owner}"}


def _message(message: Message) -> dict[str, Any]:
    return {
        "name": message.type,
        "contentType": message.content_type,
        "payload": {"$ref": f"schemas/{message.schema}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
        "x-examples": [f"examples/{name}" for name in message.examples],
    }


def _id(message: Message) -> str:
    return message.schema.partition(".")[0]
