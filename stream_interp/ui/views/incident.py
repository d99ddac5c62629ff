"""One incident as a story: when, which features by effect size, on what evidence, and who said what."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from stream_interp.drift.intervals import clopper_pearson
from stream_interp.records.alert import Alert, FeatureDrift, ScoreDrift
from stream_interp.records.annotation import Annotation
from stream_interp.ui.model.incidents import IncidentRow
from stream_interp.ui.model.model import Model
from stream_interp.ui.views.lane import Signal, signals
from stream_interp.ui.views.lanes import LaneRow, Now, lane_row
from stream_interp.ui.views.paths import Paths, paths_of_transitions

ALPHA_SIDE = 0.025  # two sides: a 95 % interval
_SLACK_MS = 3_600_000  # a silence set so long before an incident still belongs to its story


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened. `author` and `reason` are what somebody claimed."""

    event_id: str
    at_ms: int
    what: str
    severity: str
    request: int | None
    features_drifted: int | None
    groups: list[str]
    author: str
    reason: str
    until_ms: int


class Rate(Struct, frozen=True, kw_only=True):
    """A share of requests. `low` and `high` are Clopper–Pearson bounds at 95 %; None where the count is not known."""

    rate: float
    requests: int
    low: float | None
    high: float | None


class FeatureRow(Struct, frozen=True, kw_only=True):
    """One feature's part. `ratio` is now / before; None where it was never seen before."""

    drift: FeatureDrift
    before: Rate
    now: Rate
    ratio: float | None


class Command(Struct, frozen=True, kw_only=True):
    """A line to copy, and what it does."""

    text: str
    line: str


class IncidentView(Struct, frozen=True, kw_only=True):
    """The whole story, as far as it is held."""

    schema_version: Literal[1] = 1
    now_ms: int
    row: IncidentRow
    lane: LaneRow
    last: Alert | None  # its last transition, with all it listed; None where that is not held any more
    events: list[Event]
    forgotten_events: int
    features: list[FeatureRow]  # by effect size
    scores: list[ScoreDrift]
    paths: Paths
    health: list[Signal]
    evidence_root: str  # sha256 of its newest pack; empty where none was announced
    commands: list[Command]  # what can be said or kept of it now, in the order of need


def incident_view(model: Model, incident_id: str, now: Now) -> IncidentView | None:
    """None where no such incident is held."""
    row = model.incidents.find(incident_id)
    if row is None:
        return None
    lane_id = row.lane.lane_id
    held, forgotten = model.incidents.story(row)
    transitions = [event for event in held if isinstance(event, Alert)]
    last = transitions[-1] if transitions else None
    return IncidentView(
        now_ms=now.ms, row=row, lane=lane_row(row.lane, model.statuses.get(lane_id), now), last=last,
        events=_events(held, _said_of_lane(model, row)), forgotten_events=forgotten,
        features=_features(model, last), scores=list(last.scores) if last else [],
        paths=paths_of_transitions(transitions), health=signals(model, lane_id),
        evidence_root=model.versions.evidence_roots.get(incident_id, ""),
        commands=_commands(row),
    )  # fmt: skip


def _commands(row: IncidentRow) -> list[Command]:
    """Only what is not refused: an ack needs an open incident, evidence one of drift."""
    this, lane_id = shlex.quote(row.incident_id), row.lane.lane_id
    ack = ("acknowledge", f'alerts ack {this} --for 2h --reason "…"')
    of_drift = [
        ("end it, once the cause is removed", f'alerts resolve {this} --reason "…"'),
        ("learn again, if the change is wanted", f'baseline relearn {lane_id} --reason "…"'),
    ]
    of_lane = [("hold its notifications back", f'alerts silence {lane_id} --for 2h --reason "…"')]
    evidence = ("keep the evidence", f"evidence {this} --out ./evidence")
    drift = row.about == "incident"
    now = [*([] if row.ack else [ack]), *(of_drift if drift else of_lane)] if row.open else []
    return [Command(text=text, line=f"stream-interp {words}") for text, words in [*now, *([evidence] if drift else [])]]


def _said_of_lane(model: Model, row: IncidentRow) -> list[Annotation]:
    """Silences and their ends around the incident."""
    first = (row.opened_at_ms or row.at_ms) - _SLACK_MS
    said = model.annotations.get(row.lane.lane_id, ())
    return [
        note for note in said if not note.incident_id and first <= note.at_ms and (row.open or note.at_ms <= row.at_ms)
    ]


def _events(held: Sequence[Alert | Annotation], of_lane: Sequence[Annotation]) -> list[Event]:
    events = [_transition(event) if isinstance(event, Alert) else _said(event) for event in (*held, *of_lane)]
    return sorted(events, key=lambda event: event.at_ms)


def _transition(alert: Alert) -> Event:
    return Event(
        event_id=alert.event_id, at_ms=alert.at_ms, what=alert.transition, severity=alert.severity,
        request=alert.request, features_drifted=alert.features_drifted, groups=list(alert.groups), author="",
        reason=alert.note, until_ms=0,
    )  # fmt: skip


def _said(note: Annotation) -> Event:
    return Event(
        event_id=note.event_id, at_ms=note.at_ms, what=note.kind, severity="", request=None, features_drifted=None,
        groups=[], author=note.author, reason=note.reason, until_ms=note.until_ms,
    )  # fmt: skip


def _features(model: Model, last: Alert | None) -> list[FeatureRow]:
    if last is None:
        return []
    held = model.versions.baseline(last.lane, last.baseline_version)
    n_before = held.header.requests if held else 0
    listed = {(d.feature, d.direction, d.measure, d.stratum): d for d in (*last.by_effect, *last.features)}
    rows = [_feature(drift, n_before) for drift in listed.values()]
    return sorted(rows, key=_effect, reverse=True)


def _feature(drift: FeatureDrift, n_before: int) -> FeatureRow:
    return FeatureRow(
        drift=drift, before=_rate(drift.rate_baseline, n_before), now=_rate(drift.rate_now, drift.requests_now),
        ratio=drift.rate_now / drift.rate_baseline if drift.rate_baseline > 0 else None,
    )  # fmt: skip


def _rate(rate: float, requests: int) -> Rate:
    if requests <= 0 or not 0 <= rate <= 1:
        return Rate(rate=rate, requests=0, low=None, high=None)
    low, high = clopper_pearson(np.array([round(rate * requests)]), requests, ALPHA_SIDE)
    return Rate(rate=rate, requests=requests, low=float(low[0]), high=float(high[0]))


def _effect(row: FeatureRow) -> float:
    """|log ratio| of the rates, both a half request away from 0, so that a new feature can be ranked."""
    floor = 0.5 / (row.before.requests or 1_000)
    return abs(math.log(max(row.drift.rate_now, floor) / max(row.drift.rate_baseline, floor)))
