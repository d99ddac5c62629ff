"""Alerts, annotations and incidents as lines of text and rows of tables. Pure; names of others are shown inert."""

from __future__ import annotations

import shlex

from stream_interp.cli.finding import cut, lane_name
from stream_interp.records.alert import ENDS, Alert, AlertState, CauseEvidence, FeatureDrift, Said, ScoreDrift
from stream_interp.records.annotation import Annotation
from stream_interp.records.envelope import rfc3339

TOP_FEATURES = 5
REASON_CHARS = 200
CAUSE_CHARS = 400
LIST_COLUMNS = ["incident", "now", "severity", "cause", "lane_id", "lane", "features", "at", "ack", "silence"]
FEATURE_COLUMNS = [
    "feature",
    "label",
    "direction",
    "rate before",
    "rate now",
    "ratio, 90 %",
    "log e",
    "threshold",
    "request",
]
SCORE_COLUMNS = ["score", "direction", "group", "median before", "median now", "log e", "threshold", "request"]
STORY_COLUMNS = ["at", "what", "severity", "request", "detail"]
_LANE_STATES = ("blind", "integrity_error", "noted")


def line(event: Alert | Annotation) -> str:
    """One event for a person: time, what happened, lane, and what stands behind it."""
    if isinstance(event, Annotation):
        until = f"until {rfc3339(event.until_ms)}" if event.until_ms else ""
        said = f"by {cut(event.author)} (as claimed)" + (f": {cut(event.reason, REASON_CHARS)}" if event.reason else "")
        parts = [rfc3339(event.at_ms), event.kind, lane_name(event.lane), cut(event.incident_id), until, said]
        return " | ".join(part for part in parts if part)
    parts = [rfc3339(event.at_ms), event.severity, event.transition, lane_name(event.lane), f"request {event.request}"]
    if event.cause_hint:
        parts.append(f"cause {cut(event.cause_hint)}")
    if event.features:
        listed = " ".join(feature_text(feature) for feature in event.moved_most[:TOP_FEATURES])
        parts.append(f"{event.features_drifted} features: {listed}")
    if event.scores:
        parts.append("scores: " + " ".join(f"{cut(score.score)} {score.direction}" for score in event.scores))
    parts += [cut(found.text, CAUSE_CHARS) for found in event.causes if found.points and not _is_rest(found)]
    if not event.explanations_reliable:
        parts.append("explanations unreliable")
    parts += [str(shift) for shift in event.traffic]
    parts += event.creep.lines(TOP_FEATURES) if event.creep else []
    if event.note:
        parts.append(cut(event.note, REASON_CHARS))
    return " | ".join(parts)


def list_row(state: AlertState, now_ms: int) -> list[object]:
    """A row of LIST_COLUMNS."""
    return [
        cut(state.incident_id), state.transition, state.severity, cut(state.cause_hint), state.lane.lane_id,
        lane_name(state.lane), state.features_drifted or None, rfc3339(state.at_ms), said(state.ack, now_ms),
        said(state.silence, now_ms),
    ]  # fmt: skip


def said(what: Said | None, now_ms: int) -> str | None:
    """Who, as claimed, until when, and why; None where nobody said anything that still holds."""
    if what is None or 0 < what.until_ms <= now_ms:
        return None
    until = f" until {rfc3339(what.until_ms)}" if what.until_ms else ""
    reason = f": {cut(what.reason, REASON_CHARS)}" if what.reason else ""
    return f"{cut(what.author)} (as claimed){until}{reason}"


def headline(state: AlertState, now_ms: int) -> list[str]:
    """What an incident is, line by line."""
    is_open = state.transition not in ENDS
    now = f"{state.severity}, {state.transition} at {rfc3339(state.at_ms)}, request {state.request}"
    lines = [
        f"incident {cut(state.incident_id)} {'is open' if is_open else 'has ended'}: {now}",
        f"lane {state.lane.lane_id}: {lane_name(state.lane)}",
    ]
    if state.opened_request:
        lines.append(
            f"opened at request {state.opened_request} since the lane was armed; the change began near request "
            f"{state.change_estimate_request}; judged by baseline {state.baseline_version}"
        )
    if state.evidence_request:
        lines.append(f"a request-level test crossed first at request {state.evidence_request}")
    if state.change_low_request is not None:
        lines.append(
            f"with 90 % confidence it began in requests {state.change_low_request} to {state.change_high_request}, in "
            f"windows at offsets {state.change_low_offset} to {state.change_high_offset} of partition "
            f"{state.position.partition}"
        )
    if not state.explanations_reliable:
        lines.append(
            "explanations are unreliable: the SAE itself is unhealthy on this lane, do not trust feature names"
        )
    lines += map(cause_line, state.causes)
    if state.by_effect:
        lines.append(f"moved most: {'; '.join(map(feature_text, state.by_effect[:TOP_FEATURES]))}")
    lines += [str(shift) for shift in state.traffic]
    lines += state.creep.lines(len(state.creep.moved)) if state.creep else []
    if state.note:
        lines.append(cut(state.note, REASON_CHARS + 100))
    lines += [f"acknowledged by {text}" for text in [said(state.ack, now_ms)] if text and is_open]
    return lines + [f"silenced by {text}" for text in [said(state.silence, now_ms)] if text]


def cause_line(evidence: CauseEvidence) -> str:
    """What was found of one class of causes."""
    points = "points to" if evidence.points else "does not point to"
    return f"{points} {cut(evidence.cause)}: {cut(evidence.text, CAUSE_CHARS)}"


def _is_rest(evidence: CauseEvidence) -> bool:
    """It says no more than the features and scores beside it."""
    return evidence.cause == "data_shift"


def feature_row(drift: FeatureDrift) -> list[object]:
    """A row of FEATURE_COLUMNS."""
    return [
        drift.feature, cut(drift.label) or None, drift.direction, f"{drift.rate_baseline:.2%}", f"{drift.rate_now:.2%}",
        ratio_text(drift),
        f"{drift.log_e:.1f}", f"{drift.log_threshold:.1f}", drift.detected_request,
    ]  # fmt: skip


def ratio_text(drift: FeatureDrift) -> str | None:
    """The interval of the rate now over the baseline's, once there is one."""
    if drift.ratio_low is None:
        return None
    return f"×{drift.ratio_low:.2f} to " + ("any" if drift.ratio_high is None else f"×{drift.ratio_high:.2f}")


def score_row(drift: ScoreDrift) -> list[object]:
    """A row of SCORE_COLUMNS."""
    now = None if drift.now_median is None else f"{drift.now_median:.4g}"
    return [
        cut(drift.score), drift.direction, drift.group, f"{drift.baseline_median:.4g}", now, f"{drift.log_e:.1f}",
        f"{drift.log_threshold:.1f}", drift.detected_request,
    ]  # fmt: skip


def story_row(event: Alert | Annotation) -> list[object]:
    """A row of STORY_COLUMNS."""
    if isinstance(event, Annotation):
        spoken = Said(author=event.author, reason=event.reason, at_ms=event.at_ms, until_ms=event.until_ms)
        return [rfc3339(event.at_ms), event.kind, None, None, said(spoken, event.at_ms)]
    groups = ", ".join(event.groups) + (f": {event.features_drifted} features" if event.features_drifted else "")
    found = f"began in requests {event.change_low_request} to {event.change_high_request}" if event.after_alarm else ""
    detail = " · ".join(part for part in (groups, found, cut(event.note, REASON_CHARS)) if part)
    return [rfc3339(event.at_ms), event.transition, event.severity, event.request, detail or None]


def runbook(state: Alert, runbook_url: str) -> str:
    """Where the page of its cause lies; the index, for a cause that no page can be named after."""
    is_name = state.cause_hint.isascii() and state.cause_hint.replace("_", "").isalnum()
    return f"{runbook_url.rstrip('/')}/{state.cause_hint if is_name else 'README'}.md"


def next_commands(state: AlertState, now_ms: int) -> list[str]:
    """The three that help most now."""
    this, lane = shlex.quote(cut(state.incident_id)), state.lane.lane_id
    model, tenant = shlex.quote(cut(state.lane.model_id, 512)), shlex.quote(cut(state.lane.tenant, 512))
    relearn = f"stream-interp baseline relearn {lane} --reason 'this change is wanted'"
    silence = f"stream-interp alerts silence {lane} --for 2h --reason 'being worked on'"
    status = f"stream-interp status {model} --tenant {tenant}"
    if state.transition in ENDS:
        return [status, f"stream-interp evidence pack {this} --out ./pack", f"stream-interp baseline list {model}"]
    if state.creep is not None:
        approve = f"stream-interp baseline approve {lane} --reason 'this is what is normal now'"
        return [f"stream-interp baseline list {model}", approve, f"stream-interp baseline rollback {lane} --reason …"]
    if state.transition in _LANE_STATES:
        return [status, silence, "stream-interp doctor"]
    if said(state.ack, now_ms) is None:
        return [f"stream-interp alerts ack {this} --for 2h --reason 'looking into it'", silence, relearn]
    return [f"stream-interp alerts resolve {this} --reason 'cause removed'", silence, relearn]


def feature_text(feature: FeatureDrift) -> str:
    """A feature with its label, direction and rates; inert."""
    label = f" {cut(feature.label)!r}" if feature.label else ""
    rates = f"{feature.rate_baseline:.2%}→{feature.rate_now:.2%}"
    return f"#{feature.feature}{label} {feature.direction} {rates}"
