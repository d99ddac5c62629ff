"""`alerts ack|silence|unsilence|resolve`: what operators say of an incident or a lane, as records on Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.finding import LATEST, find_incident, find_lane, lane_name
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.ordering import (
    AuthorOption,
    NoWaitOption,
    WhyOption,
    duration_ms,
    make,
    now_ms,
    publish_and_hear,
    signature,
    unanswered,
)
from stream_interp.cli.output import emit_json, emit_text, notice
from stream_interp.errors import UsageError
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.latest import read_latest
from stream_interp.records.alert import ENDS, AlertState
from stream_interp.records.annotation import MAX_BLIND_SILENCE_MS, MAX_SILENCE_MS
from stream_interp.records.control import Versioned, read_order
from stream_interp.records.envelope import rfc3339
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings

IncidentArgument = Annotated[str, typer.Argument(help="The incident's id, the beginning of it, or `latest`.")]
_OF_EVIDENCE = frozenset({"opened", "updated", "escalated"})


def ack(
    incident: IncidentArgument,
    for_: Annotated[
        str, typer.Option("--for", metavar="2h", help="Until when you have it in hand (default: until it resolves).")
    ] = "",
    reason: WhyOption = "",
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """You have an incident in hand: it is not told again meanwhile. Exits 4 if no DETECT took it in."""
    signed = signature(author, reason, required=False)
    until_ms = now_ms() + duration_ms(for_) if for_ else 0
    kafka = _kafka(config, sets, bootstrap)
    state = open_incident(read_latest(kafka, "interp.alert-state", AlertState), incident)
    record = make(kafka, "ack", state.lane, signed, incident_id=state.incident_id, until_ms=until_ms)
    until = f"until {rfc3339(until_ms)}" if until_ms else "until it ends"
    _carry_out(kafka, record, f"ack of incident {state.incident_id} {until}", no_wait, json)


def silence(
    target: Annotated[str, typer.Argument(metavar="LANE|INCIDENT", help="A lane, or the lane of an incident.")],
    for_: Annotated[str, typer.Option("--for", metavar="2h", help="How long; 7d at most.")],
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Hold back notifications of a lane for a time; alerts and status go on. Exits 4 if no DETECT took it in."""
    signed, length_ms = signature(author, reason), duration_ms(for_)
    if length_ms > MAX_SILENCE_MS:
        raise UsageError(f"--for {for_}: a silence must expire within 7d; a lane that nobody wants is not produced to")
    kafka = _kafka(config, sets, bootstrap)
    lane, until_ms = _lane(kafka, target), now_ms() + length_ms
    record = make(kafka, "silence", lane, signed, until_ms=until_ms)
    if length_ms > MAX_BLIND_SILENCE_MS:
        notice("blind and integrity_error of this lane are silenced for the first 24 h only")
    _carry_out(kafka, record, f"silence of lane {lane.lane_id} until {rfc3339(until_ms)}", no_wait, json)


def unsilence(
    target: Annotated[str, typer.Argument(metavar="LANE|INCIDENT", help="A lane, or the lane of an incident.")],
    reason: WhyOption = "",
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """End the silence of a lane before its time. Exits 4 if no DETECT took it in."""
    signed, kafka = signature(author, reason, required=False), _kafka(config, sets, bootstrap)
    lane = _lane(kafka, target)
    record = make(kafka, "unsilence", lane, signed)
    _carry_out(kafka, record, f"end of the silence of lane {lane.lane_id}", no_wait, json)


def resolve(
    incident: IncidentArgument,
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """End an open incident on your word, without evidence of recovery. Exits 4 if no DETECT took it in."""
    signed, kafka = signature(author, reason), _kafka(config, sets, bootstrap)
    state = open_incident(read_latest(kafka, "interp.alert-state", AlertState), incident)
    if state.transition not in _OF_EVIDENCE:
        raise UsageError(
            f"incident {state.incident_id} is a lane that is {state.status}: it ends when its cause does, not on a "
            f"word; see the runbook of {state.cause_hint}, and silence it meanwhile"
        )
    notice(
        f"incident {state.incident_id} of {lane_name(state.lane)} ends and all evidence of the lane starts anew; if "
        "the drift goes on, a new incident opens. To make today's behaviour the normal one: "
        f"stream-interp baseline relearn {state.lane.lane_id} --reason …"
    )
    record = make(kafka, "resolve", state.lane, signed, incident_id=state.incident_id)
    _carry_out(kafka, record, f"end of incident {state.incident_id}", no_wait, json)


def open_incident(states: dict[str, AlertState], word: str) -> AlertState:
    """The open incident that a word names. Raises UsageError."""
    candidates = {name: state for name, state in states.items() if state.transition not in ENDS}
    exact = states.get(word)
    if exact is not None and exact.transition in ENDS:
        raise UsageError(f"incident {word} has ended ({exact.transition} at {rfc3339(exact.at_ms)}); nothing is open")
    return find_incident(word, candidates, "open incident")


def _carry_out(kafka: KafkaSettings, record: Versioned, what: str, no_wait: bool, json: bool) -> None:
    taken_in = publish_and_hear(kafka, record, wait=not no_wait)
    if json:
        manifest = record.manifest
        signed = {"author": manifest.author, "reason": manifest.reason}
        emit_json({"schema_version": 1, "order": read_order(record), **signed, "taken_in": taken_in})
    else:
        emit_text(f"{what}: {'DETECT has taken it in' if taken_in else 'published'}")
    if not taken_in and not no_wait:
        raise unanswered(what)


def _lane(kafka: KafkaSettings, word: str) -> Lane:
    states = read_latest(kafka, "interp.alert-state", AlertState)
    lanes = {status.lane.lane_id: status.lane for status in read_latest(kafka, "interp.status", Status).values()}
    lanes |= {state.lane.lane_id: state.lane for state in states.values()}
    if word == LATEST or any(name.startswith(word) for name in states):
        return find_incident(word, states).lane
    return find_lane(word, lanes.values(), "lane or incident")


def _kafka(config: ConfigOption, sets: SetOption, bootstrap: BootstrapOption) -> KafkaSettings:
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    require_kafka(kafka)
    return kafka
