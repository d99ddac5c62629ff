"""Following `interp.alerts` with the settings of this command."""

from __future__ import annotations

from stream_interp.kafka.subscribe import EventSubscriber
from stream_interp.secret_files import read_secret
from stream_interp.settings import KafkaSettings


def event_subscriber(
    kafka: KafkaSettings, *, from_beginning: bool = False, model_id: str | None = None, tenant: str | None = None
) -> EventSubscriber:
    """Alerts and annotations from now on, or all. Raises DependencyUnreachable, UsageError."""
    librdkafka = dict(kafka.librdkafka)
    if kafka.password_file:
        librdkafka.setdefault("sasl.password", read_secret(kafka.password_file, "kafka.password_file"))
    return EventSubscriber(
        kafka.bootstrap,
        tenant=tenant,
        model_id=model_id,
        from_beginning=from_beginning,
        topic_prefix=kafka.topic_prefix,
        librdkafka=librdkafka,
    )
