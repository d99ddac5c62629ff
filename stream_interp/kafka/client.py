"""Builds every Kafka client of the project, and says at start whether Kafka answers.

librdkafka's defaults are wrong for us in several places; the comments below say why. Settings under
`kafka.librdkafka` win over all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, libversion
from confluent_kafka.admin import AdminClient

from stream_interp.errors import DependencyUnreachable, UsageError
from stream_interp.kafka.faults import Faults
from stream_interp.secret_files import read_secret
from stream_interp.settings import KafkaSettings

Config = dict[str, Any]
OnError = Callable[[KafkaError], None]

MESSAGE_MAX_BYTES = 16 * 1024 * 1024
TRANSACTION_TIMEOUT_MS = 10_000  # a killed worker's open transaction holds readers this long, and no longer
_ATTEMPT_S = 0.5

_librdkafka_log = logging.getLogger("stream_interp.librdkafka")
_librdkafka_log.addHandler(logging.NullHandler())


def consumer_config(
    kafka: KafkaSettings,
    group: str,
    *,
    offset_reset: Literal["error", "earliest", "latest"] = "error",
    on_error: OnError | None = None,
    **overrides: object,
) -> Config:
    """Settings of a `read_committed` consumer that never commits by itself.

    Args:
        kafka: the user's settings; `kafka.librdkafka` wins over everything here.
        group: suffix of the group id, after `kafka.group_prefix`.
        offset_reset: what to do where no valid offset is committed. `error`, because the other two skip records
            silently when the committed offset has expired.
        on_error: gets the errors that librdkafka shows nowhere else, such as a wrong password; default: logged.
        overrides: further settings, with `_` for `.`, such as `max_poll_interval_ms=600_000`.
    """
    config: Config = {
        "group.id": f"{kafka.group_prefix}-{group}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": offset_reset,
        "isolation.level": "read_committed",
        "check.crcs": True,
        "queued.max.messages.kbytes": 256 * 1024,
        "fetch.message.max.bytes": MESSAGE_MAX_BYTES,
        "fetch.max.bytes": 128 * 1024 * 1024,
        "fetch.wait.max.ms": 100,
        "fetch.queue.backoff.ms": 20,  # at its 1 s default a full queue stalls a partition of large records
    }
    if kafka.librdkafka.get("group.protocol", "classic") == "classic":  # the newer protocol rejects the property
        config["session.timeout.ms"] = 10_000  # a killed worker's partitions wait this long for a successor
    return _config(kafka, config, overrides, on_error)


def producer_config(
    kafka: KafkaSettings,
    *,
    transactional_id: str = "",
    on_error: OnError | None = None,
    **overrides: object,
) -> Config:
    """Settings of an idempotent producer whose keys meet in the same partition as those of Java producers.

    Args:
        kafka: the user's settings; `kafka.librdkafka` wins over everything here.
        transactional_id: whole id, stable per process instance, so that a restart aborts its predecessor's
            transaction at once; empty for a producer without transactions.
        on_error: as in `consumer_config`.
        overrides: further settings, with `_` for `.`.
    """
    config: Config = {
        "partitioner": "murmur2_random",  # librdkafka's own default splits keys differently from Java clients
        "enable.idempotence": True,
        "acks": "all",
        "message.max.bytes": MESSAGE_MAX_BYTES,
        "linger.ms": 20,
        "queue.buffering.max.kbytes": 256 * 1024,
    }
    if transactional_id:
        config |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    return _config(kafka, config, overrides, on_error)


def consumer(config: Config) -> Consumer:
    """A consumer from `consumer_config`. Raises UsageError for a setting that librdkafka does not know."""
    try:
        return Consumer(config, logger=_librdkafka_log)
    except KafkaException as error:
        _refuse(error)


def producer(config: Config) -> Producer:
    """A producer from `producer_config`. Raises UsageError for a setting that librdkafka does not know."""
    try:
        return Producer(config, logger=_librdkafka_log)
    except KafkaException as error:
        _refuse(error)


def admin(kafka: KafkaSettings, on_error: OnError | None = None) -> AdminClient:
    """An admin client. Raises UsageError for a setting that librdkafka does not know."""
    try:
        return AdminClient(_config(kafka, {}, {}, on_error), logger=_librdkafka_log)
    except KafkaException as error:
        _refuse(error)


def require_kafka(kafka: KafkaSettings, timeout_s: float = 5.0) -> None:
    """Returns once Kafka has answered a metadata request.

    A refused login or a TLS mismatch fails at once; a broker that may still be starting has `timeout_s`.

    Raises:
        DependencyUnreachable: naming the address, what happened there and what to do.
        UsageError: a setting that librdkafka does not know.
    """
    faults = Faults(log_every_s=None)
    client = admin(kafka, on_error=faults)
    for _ in range(max(1, round(timeout_s / _ATTEMPT_S))):
        try:
            client.list_topics(timeout=_ATTEMPT_S)
            return
        except KafkaException:
            client.poll(0)
            if faults.hopeless:
                break
    raise DependencyUnreachable("Kafka", address(kafka), *faults.explain())


def address(kafka: KafkaSettings) -> str:
    """Where clients look for Kafka: `kafka.bootstrap`, unless the pass-through names another."""
    return kafka.librdkafka.get("bootstrap.servers", kafka.bootstrap)


def librdkafka_version() -> str:
    """Version of the C library inside the client."""
    return str(libversion()[0])


def _config(kafka: KafkaSettings, base: Config, overrides: Mapping[str, object], on_error: OnError | None) -> Config:
    config: Config = {
        "bootstrap.servers": kafka.bootstrap,
        "client.id": f"stream-interp-{kafka.instance}",
        "reconnect.backoff.max.ms": 2_000,
        "log.connection.close": False,
        **base,
        **{name.replace("_", "."): value for name, value in overrides.items()},
    }
    if kafka.password_file:
        config["sasl.password"] = read_secret(kafka.password_file, "kafka.password_file")
    # The user asks for librdkafka's own log by `debug`; otherwise it is noise beside `error_cb`.
    _librdkafka_log.propagate = "debug" in kafka.librdkafka
    return {**config, **kafka.librdkafka, "error_cb": on_error or Faults()}


def _refuse(error: KafkaException) -> NoReturn:
    fault = error.args[0]
    raise UsageError(f"kafka.librdkafka: {fault.str()}; librdkafka's CONFIGURATION.md lists what it takes") from error
