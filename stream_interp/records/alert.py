"""`interp.alerts` (append-only transitions) and `interp.alert-state` (the last word on each incident)."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field, structs

from stream_interp.records.envelope import CLOUDEVENT_JSON, Envelope, json_record, read_json, rfc3339
from stream_interp.records.lane import Lane, digest
from stream_interp.records.text import inert

CE_TYPE: Literal["interp.alert.transition.v1"] = "interp.alert.transition.v1"
STATE_TYPE = "interp.alert_state.v1"

Severity = Literal["info", "warning", "critical"]
Transition = Literal[
    "opened", "updated", "escalated", "resolved", "blind", "seeing", "integrity_error", "integrity_restored", "noted",
    "note_ended",
]  # fmt: skip
BEGINS = frozenset({"opened", "blind", "integrity_error", "noted"})
FIRING = BEGINS | {"updated", "escalated"}
ENDS = frozenset({"resolved", "seeing", "integrity_restored", "note_ended"})  # after which nothing is open
OF_LANE = frozenset({"blind", "seeing", "integrity_error", "integrity_restored", "noted", "note_ended"})  # no incident
Group = Literal["t0", "features", "health", "means", "magnitude"]
Measure = Literal["rate", "magnitude", "magnitude_when_fired"]


class FeatureDrift(Struct, frozen=True, kw_only=True):
    """One feature's part in an incident. Rates are shares of requests in which the feature fired."""

    feature: int
    direction: Literal["up", "down", "new"]
    log_e: float  # natural log of the e-SR statistic, in weeks
    log_threshold: float
    rate_baseline: float
    rate_now: float
    requests_now: int = 0  # the n of `rate_now`: requests since the statistic began to rise
    detected_request: int  # requests of the lane since it was armed
    label: str = ""  # untrusted text of an operator's file
    measure: Measure = "rate"  # of magnitudes log_e is about their mean, and the rates are said beside it
    stratum: str = "unit"  # which tokens: `unit`, `short`, `block1`, …
    magnitude_baseline: float | None = None  # mean of the requests' maxima as shares of cap_f; None for rates
    magnitude_now: float | None = None  # of recent requests
    effect: float | None = None  # now / baseline of the measure; None where the baseline has none
    change_request: int = 0  # where this test's evidence began, in requests of the lane since it was armed
    first_offset: int = -1  # of the window that showed it, in the lane's windows partition
    last_offset: int = -1  # of the latest window behind `log_e`, rates and effect
    budget_share: float = 0.0  # of the lane's false-alarm budget that this test has
    ratio_low: float | None = None  # 90 % interval of the rate now over the baseline's, by the post-alarm job
    ratio_high: float | None = None  # None beside a ratio_low: without bound, because it never fired in the baseline
    change_low_request: int | None = None  # 90 % confidence set of the change, by the same job: first request, and
    change_high_request: int | None = None  # last, of the lane since it was armed


class ScoreDrift(Struct, frozen=True, kw_only=True):
    """One request-level score's part in an incident."""

    score: str
    direction: Literal["up", "down"]
    group: Group
    log_e: float
    log_threshold: float
    baseline_median: float
    now_median: float | None  # of recent requests; None where none had the score, and of strata beside the unit
    detected_request: int
    stratum: str = "unit"
    first_offset: int = -1
    last_offset: int = -1
    budget_share: float = 0.0
    change_low_request: int | None = None  # as of features
    change_high_request: int | None = None


class TrafficShift(Struct, frozen=True, kw_only=True):
    """One part of a `traffic_mix`: the share of requests on one side of a length, or of a first position, or of a
    segment: of one that the baseline knows, of none, or of all others."""

    of: Literal["length", "start", "segment"]
    side: Literal["at_least", "below", "of", "of_none", "of_others"]
    tokens: int = 0  # of lengths and first positions
    segment: str = ""  # with side `of`
    share_baseline: float
    share_now: float | None  # of recent requests; None where none came

    def __str__(self) -> str:
        """For people."""
        limit = f"{self.tokens:,} or more" if self.side == "at_least" else f"fewer than {self.tokens:,}"
        if self.of == "start":
            limit = f"{self.tokens:,} or later" if self.side == "at_least" else f"before {self.tokens:,}"
        which = f"of {limit} tokens" if self.of == "length" else f"whose first token is {limit}"
        if self.of == "segment":
            others = "that name no segment" if self.side == "of_none" else "of segments that the baseline does not know"
            which = f'of segment "{inert(self.segment)}"' if self.side == "of" else others
        now = "none came lately" if self.share_now is None else f"{self.share_now:.1%} now"
        return f"requests {which}: {self.share_baseline:.1%} in the baseline, {now}"


class CauseEvidence(Struct, frozen=True, kw_only=True):
    """What speaks for one class of causes of an incident, or that nothing does."""

    cause: str
    points: bool  # to this cause; the first that does, in the order of the list, is the incident's `cause_hint`
    text: str  # one sentence or two
    numbers: dict[str, float] = field(default_factory=dict)  # behind the text


class Crept(Struct, frozen=True, kw_only=True):
    """One part of a `baseline_creep`: a feature's share of requests, or a quantile of a score."""

    of: str  # `rate`, or the score and its quantile
    feature: int | None = None  # of a rate
    anchor: float  # in the lane's anchor
    now: float  # in the baseline in effect
    at_least: float  # ratio of the two, whichever is larger, that the intervals of both vouch for

    def __str__(self) -> str:
        """For people."""
        if self.feature is None:
            return f"{self.of}: {self.anchor:.4g} in the anchor, {self.now:.4g} now"
        return f"feature {self.feature}: {self.anchor:.2%} of requests in the anchor, {self.now:.2%} now"


class BaselineCreep(Struct, frozen=True, kw_only=True):
    """How the baseline in effect differs from the lane's anchor, beyond tolerance and beyond what chance explains."""

    anchor: int  # version
    features: int  # all that crept; `moved` lists the strongest
    moved: list[Crept] = field(default_factory=list)  # scores first

    def lines(self, at_most: int) -> list[str]:
        """For people."""
        said = f"baselines crept away from the anchor {self.anchor}: {self.features} features beyond tolerance"
        return [said, *map(str, self.moved[:at_most])]


class Position(Struct, frozen=True, kw_only=True, order=True):
    """A place in the windows log: what decisions are a function of."""

    partition: int
    offset: int


class Alert(Struct, frozen=True, kw_only=True):
    """One transition of an incident, or of a lane that went blind."""

    schema_version: Literal[1] = 1
    event_id: str
    lane: Lane
    incident_id: str
    transition: Transition
    severity: Severity
    status: str
    cause_hint: str
    groups: list[Group] = field(default_factory=list)
    features_drifted: int = 0  # all of them; `features` lists the strongest
    features: list[FeatureDrift] = field(default_factory=list)
    scores: list[ScoreDrift] = field(default_factory=list)
    by_effect: list[FeatureDrift] = field(default_factory=list)  # of all that drifted, those that moved most
    causes: list[CauseEvidence] = field(default_factory=list)  # each class that was considered
    traffic: list[TrafficShift] = field(default_factory=list)  # of `traffic_mix`
    creep: BaselineCreep | None = None  # of `baseline_creep`
    opened_request: int = 0  # requests of the lane since it was armed
    request: int = 0  # the same, at this transition
    change_estimate_request: int = 0  # where the statistics began to rise
    change_low_request: int | None = None  # confidence set of the change, that of the test with the most evidence;
    change_high_request: int | None = None  # None until the post-alarm job has said it, or where it cannot
    change_low_offset: int | None = None  # of the windows that hold these requests, in the lane's windows partition
    change_high_offset: int | None = None
    after_alarm: bool = False  # not of `step`: the transition at this position once more, with what the job found
    evidence_request: int = 0  # at which a request-level test crossed first; 0 where none did
    at_ms: int  # the window's closed_at
    position: Position
    window_id: str = ""
    baseline_version: int = 0
    design_effect: float | None = None  # of the baseline's requests: 1 where they do not hang together; None: not known
    false_alarms_allowed: float = 0.0  # by the budget, since the lane was armed
    incidents_opened: int = 0  # since the lane was made, this one included
    explanations_reliable: bool = True  # false while SAE health is drifted: do not trust feature names then
    note: str = ""  # who ended it and why, as claimed, where evidence did not: untrusted text
    runbook: str = ""  # page of `deploy/runbooks` that says what to do

    @property
    def moved_most(self) -> list[FeatureDrift]:
        """By effect; of an alert of before that order, by evidence."""
        return self.by_effect or self.features


class Said(Struct, frozen=True, kw_only=True):
    """Who said what of an incident or a lane, as claimed, and until when it holds (0 = no end of its own)."""

    author: str
    reason: str
    at_ms: int
    until_ms: int = 0


class AlertState(Alert, frozen=True, kw_only=True):
    """An incident's last transition, and what operators said of it."""

    ack: Said | None = None
    silence: Said | None = None


class AlertEvent(Struct, frozen=True, kw_only=True):
    """The alert as it lies on the topic: a CloudEvent in structured mode."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: Literal["interp.alert.transition.v1"] = CE_TYPE
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: Alert


def event_id(lane: Lane, incident_number: int, transition: str, position: Position) -> str:
    """Deterministic, so that a replay gives the same id and readers can drop repeats."""
    return digest(lane.lane_id, incident_number, transition, position.partition, position.offset)[:32]


def encode_alert(alert: Alert) -> Envelope:
    """CloudEvents structured mode, keyed by lane."""
    event = AlertEvent(
        id=alert.event_id,
        source=f"/{alert.lane.tenant}/{alert.lane.model_id}",
        subject=alert.incident_id,
        time=rfc3339(alert.at_ms),
        data=alert,
    )
    headers = [("content-type", CLOUDEVENT_JSON.encode())]
    return Envelope(alert.lane.lane_id.encode(), headers, msgspec.json.encode(event))


def decode_alert(value: bytes | None) -> Alert:
    """The alert in a structured CloudEvent. Raises IntegrityError."""
    return read_json(value, AlertEvent).data


def encode_alert_state(state: AlertState) -> Envelope:
    """Keyed by incident, for a compacted topic."""
    return json_record(state.incident_id, STATE_TYPE, state)


def alert_state(alert: Alert, ack: Said | None = None, silence: Said | None = None) -> AlertState:
    """An alert with what operators said of its incident and lane."""
    return AlertState(**structs.asdict(alert), ack=ack, silence=silence)
