"""`alerts tail`: follow the alerts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_text, notice
from stream_interp.kafka.subscribe import TOPIC, AlertSubscriber
from stream_interp.records.alert import Alert, FeatureDrift
from stream_interp.records.envelope import rfc3339
from stream_interp.secret_files import read_secret
from stream_interp.settings import KafkaSettings

TOP_FEATURES = 5
_POLL_S = 0.5


def tail(
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Past alerts first.")] = False,
    model_id: Annotated[str | None, typer.Option("--model-id", help="Only this model.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many alerts.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="S", help="End after S seconds without an alert.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Follow the alerts, one line each; with --json one object each, as the records of `interp.alerts` hold it."""
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    with _subscriber(kafka, from_beginning, model_id, tenant) as subscriber:
        notice(f"following {kafka.topic_prefix}{TOPIC} at {kafka.bootstrap}; Ctrl-C ends", style="dim")
        for alert in _alerts(subscriber, limit, timeout):
            emit_json(alert) if json else emit_text(line(alert))


def line(alert: Alert) -> str:
    """One alert for a person: time, severity, transition, lane, cause, strongest features, scores."""
    lane = alert.lane
    parts = [
        rfc3339(alert.at_ms),
        alert.severity,
        alert.transition,
        f"{lane.tenant}/{lane.model_id}@{lane.model_revision} {lane.hook_name}",
        f"request {alert.request}",
    ]
    if alert.cause_hint:
        parts.append(f"cause {alert.cause_hint}")
    if alert.features:
        listed = " ".join(_feature(feature) for feature in alert.features[:TOP_FEATURES])
        parts.append(f"{alert.features_drifted} features: {listed}")
    if alert.scores:
        parts.append("scores: " + " ".join(f"{score.score} {score.direction}" for score in alert.scores))
    if not alert.explanations_reliable:
        parts.append("explanations unreliable")
    return " | ".join(parts)


def _feature(feature: FeatureDrift) -> str:
    return f"#{feature.feature} {feature.direction} {feature.rate_baseline:.2%}→{feature.rate_now:.2%}"


def _subscriber(
    kafka: KafkaSettings, from_beginning: bool, model_id: str | None, tenant: str | None
) -> AlertSubscriber:
    librdkafka = dict(kafka.librdkafka)
    if kafka.password_file:
        librdkafka.setdefault("sasl.password", read_secret(kafka.password_file, "kafka.password_file"))
    return AlertSubscriber(
        kafka.bootstrap,
        tenant=tenant,
        model_id=model_id,
        from_beginning=from_beginning,
        topic_prefix=kafka.topic_prefix,
        librdkafka=librdkafka,
    )


def _alerts(subscriber: AlertSubscriber, limit: int | None, timeout_s: float | None) -> Iterator[Alert]:
    left = math.inf if limit is None else limit
    patience_s = math.inf if timeout_s is None else timeout_s
    last_s = time.monotonic()
    while left > 0 and (wait_s := last_s + patience_s - time.monotonic()) > 0:
        alert = subscriber.poll(min(_POLL_S, wait_s))
        if alert is not None:
            left, last_s = left - 1, time.monotonic()
            yield alert
