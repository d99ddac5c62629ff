"""`interp.status`: what a reader sees of a lane. A missing or stale status means *unknown*, never ok."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from stream_interp.records.alert import (
    BaselineCreep,
    CauseEvidence,
    FeatureDrift,
    Position,
    Said,
    ScoreDrift,
    TrafficShift,
)
from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.lane import Lane

CE_TYPE = "interp.status.v1"

State = Literal["integrity_error", "blind", "critical", "warning", "recovering", "learning", "ok"]
WORST_FIRST: tuple[str, ...] = ("integrity_error", "blind", "critical", "warning", "recovering", "learning", "ok")


class Coverage(Struct, frozen=True, kw_only=True):
    """Requests that fed the tests or the baseline, of those seen; the rest by reason."""

    requests_counted: int = 0
    requests_seen: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    features_armed: int = 0
    features_not_covered: int = 0


class Health(Struct, frozen=True, kw_only=True):
    """Scalar health of the SAE on this lane, recent windows against the baseline. None where not measured."""

    explained_variance: float | None = None
    explained_variance_baseline: float | None = None
    l0: float | None = None
    l0_baseline: float | None = None
    norm: float | None = None
    norm_baseline: float | None = None
    massive_share: float | None = None
    massive_share_baseline: float | None = None


class BaselineCard(Struct, frozen=True, kw_only=True):
    """Which baseline a lane is judged by."""

    version: int
    requests: int
    tokens: int
    provisional: bool
    design_effect: float | None = None  # of its requests; None: not known
    dependent: bool = False  # they are not independent, so that alarms may be more than the budget
    stationary_p: float | None = None  # for one distribution in its requests' order; doubtful at 0.05 or below
    anchor: int = 0  # version of the baseline that later ones are compared with; 0: of before there were anchors


class IncidentCard(Struct, frozen=True, kw_only=True):
    """The open incident of a lane, if any."""

    incident_id: str
    severity: Literal["warning", "critical"]
    opened_request: int
    opened_at_ms: int
    cause_hint: str
    features_drifted: int
    features: list[FeatureDrift] = field(default_factory=list)
    scores: list[ScoreDrift] = field(default_factory=list)
    by_effect: list[FeatureDrift] = field(default_factory=list)  # of all that drifted, those that moved most
    causes: list[CauseEvidence] = field(default_factory=list)  # each class that was considered
    evidence_request: int = 0  # at which a request-level test crossed first; 0 where none did
    ack: Said | None = None

    @property
    def moved_most(self) -> list[FeatureDrift]:
        """By effect; of a status of before that order, by evidence."""
        return self.by_effect or self.features


class Status(Struct, frozen=True, kw_only=True):
    """Status of one lane. `as_of_ms` is when DETECT last vouched for it (wall clock of the shell)."""

    schema_version: Literal[1] = 1
    lane: Lane
    state: State
    reason: str = ""
    as_of_ms: int
    closed_at_ms: int  # of the lane's latest window
    created_ms: int = 0  # closed_at of the lane's first window, which orders revisions; 0 = not known
    position: Position
    sequence: int  # rises with every publication at one position
    requests: int = 0  # since the lane was armed, or of the learning phase
    learning: str = ""  # "fit 120/2000" while it learns
    coverage: Coverage = Coverage()
    health: Health = Health()
    baseline: BaselineCard | None = None
    incident: IncidentCard | None = None
    traffic: list[TrafficShift] = field(default_factory=list)  # how requests differ from the baseline's
    creep: BaselineCreep | None = None  # how the latest baseline differs from the lane's anchor; None: it does not
    second_opinions: dict[str, int] = field(default_factory=dict)  # drifts river's detectors saw; they open nothing
    lag_age_s: float | None = None  # age of the oldest window not yet read
    silence: Said | None = None  # notifications of this lane are held back until then
    labels: str = ""  # why features have no label, where a file of labels is named; empty where they have
    sinks_failing: list[str] = field(default_factory=list)  # of NOTIFY, by its heartbeat


def encode_status(status: Status) -> Envelope:
    """Keyed by lane, for a compacted topic."""
    return json_record(status.lane.lane_id, CE_TYPE, status)
