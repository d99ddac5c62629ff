"""`alerts list|show|tail`: incidents as they stand, one with its story, and what happens as it happens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from stream_interp.cli.alert_text import (
    FEATURE_COLUMNS,
    LIST_COLUMNS,
    SCORE_COLUMNS,
    STORY_COLUMNS,
    feature_row,
    headline,
    line,
    list_row,
    next_commands,
    runbook,
    score_row,
    story_row,
)
from stream_interp.cli.configuration import load_settings
from stream_interp.cli.events import event_subscriber
from stream_interp.cli.finding import cut, find_incident
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, emit_text, notice
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.latest import read_latest
from stream_interp.kafka.story import read_lane_events, story_of
from stream_interp.kafka.subscribe import TOPIC, EventSubscriber
from stream_interp.records.alert import ENDS, Alert, AlertState
from stream_interp.records.annotation import Annotation

STATE_TOPIC = "interp.alert-state"
_POLL_S = 0.5

ModelOption = Annotated[str | None, typer.Option("--model-id", help="Only this model.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")]


def list_(
    all_: Annotated[bool, typer.Option("--all/--open", help="Ended ones too.")] = False,
    model_id: ModelOption = None,
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 50,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Incidents as they stand, the newest first: open ones, and who has them in hand."""
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    require_kafka(kafka)
    found = wanted(read_latest(kafka, STATE_TOPIC, AlertState), all_=all_, model_id=model_id, tenant=tenant)
    shown, now_ms = found[:limit], time.time_ns() // 1_000_000
    if json:
        emit_json({"schema_version": 1, "incidents": shown, "total": len(found)})
        return
    if shown:
        emit_table("", LIST_COLUMNS, [list_row(state, now_ms) for state in shown])
    else:
        emit_text("no incident" if all_ else "no open incident")
    if len(found) > limit:
        notice(f"{len(found) - limit} more; see them with --limit {len(found)}")


def show(
    incident: Annotated[str, typer.Argument(help="The incident's id, the beginning of it, or `latest`.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """One incident: what moved and how far, its transitions, what was said of it, and what to do next."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    require_kafka(settings.kafka)
    states = read_latest(settings.kafka, STATE_TOPIC, AlertState)
    state = find_incident(incident, states)
    story = story_of(read_lane_events(settings.kafka, state.lane.lane_id), state.incident_id)
    page, now_ms = runbook(state, settings.notify.runbook_url), time.time_ns() // 1_000_000
    commands = next_commands(state, now_ms)
    if json:
        told = [{"type": "transition" if isinstance(e, Alert) else "annotation", **_plain(e)} for e in story]
        emit_json({"schema_version": 1, "incident": state, "story": told, "runbook": page, "next": commands})
    else:
        _show(state, story, page, commands, now_ms)


def tail(
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Past alerts first.")] = False,
    model_id: ModelOption = None,
    tenant: TenantOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many events.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="S", help="End after S seconds without an event.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Follow the alerts and what operators say of them, one line each.

    With --json one object each, as the records of `interp.alerts` hold it: a transition, or an annotation with `kind`.
    """
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    with event_subscriber(kafka, from_beginning=from_beginning, model_id=model_id, tenant=tenant) as subscriber:
        notice(f"following {kafka.topic_prefix}{TOPIC} at {kafka.bootstrap}; Ctrl-C ends", style="dim")
        for event in _events(subscriber, limit, timeout):
            emit_json(event) if json else emit_text(line(event))


def wanted(states: dict[str, AlertState], *, all_: bool, model_id: str | None, tenant: str | None) -> list[AlertState]:
    """Those that pass the filters, the newest first."""
    passed = [
        state
        for state in states.values()
        if (all_ or state.transition not in ENDS)
        and model_id in (None, state.lane.model_id)
        and tenant in (None, state.lane.tenant)
    ]
    return sorted(passed, key=lambda state: (-state.at_ms, state.incident_id))


def _show(state: AlertState, story: list[Alert | Annotation], page: str, commands: list[str], now_ms: int) -> None:
    for text in headline(state, now_ms):
        emit_text(text)
    emit_text(f"cause {cut(state.cause_hint)}: see {page}")
    if state.features:
        count = f"{len(state.features)} of {state.features_drifted} features"
        emit_table(count, FEATURE_COLUMNS, [feature_row(drift) for drift in state.features])
    if state.scores:
        emit_table("scores", SCORE_COLUMNS, [score_row(drift) for drift in state.scores])
    emit_table("story", STORY_COLUMNS, [story_row(event) for event in story])
    emit_text("next:")
    for command in commands:
        emit_text(f"  {command}")


def _plain(event: Alert | Annotation) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(event)
    return fields


def _events(subscriber: EventSubscriber, limit: int | None, timeout_s: float | None) -> Iterator[Alert | Annotation]:
    left = math.inf if limit is None else limit
    patience_s = math.inf if timeout_s is None else timeout_s
    last_s = time.monotonic()
    while left > 0 and (wait_s := last_s + patience_s - time.monotonic()) > 0:
        event = subscriber.poll(min(_POLL_S, wait_s))
        if event is not None:
            left, last_s = left - 1, time.monotonic()
            yield event
