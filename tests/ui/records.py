"""Records of a fleet, as they lie on the topics, and a source of views without Kafka."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import structs

from stream_interp.records.alert import (
    Alert,
    AlertState,
    FeatureDrift,
    Position,
    Said,
    ScoreDrift,
    alert_state,
    encode_alert,
    encode_alert_state,
)
from stream_interp.records.annotation import Annotation, encode_annotation
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import BaselineHeader, encode_control, make_control
from stream_interp.records.cut import Cut, LaneCount, encode_cut
from stream_interp.records.envelope import Envelope
from stream_interp.records.heartbeat import Heartbeat, encode_heartbeat
from stream_interp.records.lane import Lane
from stream_interp.records.status import (
    BaselineCard,
    Coverage,
    Health,
    IncidentCard,
    Status,
    encode_status,
)
from stream_interp.ui.feed import FeedState
from stream_interp.ui.model.model import Model

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
MINUTE_MS = 60_000
N_BASELINE = 8_000
View = TypeVar("View")


class StillSource:
    """A model that nobody changes but the test."""

    def __init__(self, model: Model, state: FeedState | None = None) -> None:
        self.model, self.state, self._lock = model, state or FeedState(True, ""), threading.Lock()

    def ask(self, view: Callable[[Model], View]) -> View:
        with self._lock:
            return view(self.model)


def feed(model: Model, topic: str, *envelopes: Envelope) -> None:
    for envelope in envelopes:
        model.take(topic, Consumed(topic, 0, 0, NOW_MS, envelope.key, list(envelope.headers), envelope.value))


def lane(k: int = 0, **names: str) -> Lane:
    models = ("credit-risk", "claims-triage", "support-router", "kyc-screening", "pricing")
    given = {
        "tenant": "default", "model_id": models[k % 5], "hook_name": f"blocks.{k // 5}.resid_post",
        "model_revision": "2026-01", "sae_fingerprint": f"{k:02x}" * 32,
    }  # fmt: skip
    return Lane(**{**given, **names})


def status(of: Lane, state: str = "ok", age_s: float = 2.0, **fields: object) -> Status:
    given: dict[str, object] = {
        "requests": 48_211, "closed_at_ms": NOW_MS - 4_000, "position": Position(partition=1, offset=900),
        "sequence": 3, "lag_age_s": 0.3,
        "coverage": Coverage(requests_counted=48_211, requests_seen=48_590,
                             reasons={"incomplete": 79, "too_short": 300}, features_armed=3_991,
                             features_not_covered=617),
        "health": Health(explained_variance=0.812, explained_variance_baseline=0.823, l0=41.3, l0_baseline=40.9,
                         norm=171.2, norm_baseline=170.4, massive_share=0.0004, massive_share_baseline=0.0004),
        "baseline": BaselineCard(version=NOW_MS - 9_000_000, requests=N_BASELINE, tokens=182_133, provisional=False),
        "second_opinions": {"explained_variance": 2, "l0": 0},
    }  # fmt: skip
    return Status(lane=of, state=state, as_of_ms=NOW_MS - round(age_s * 1000), **{**given, **fields})  # type: ignore[arg-type]


def drift(feature: int, before: float, now: float, log_e: float = 24.0, **fields: object) -> FeatureDrift:
    direction = "new" if before == 0 else "up" if now > before else "down"
    return FeatureDrift(
        feature=feature, direction=direction, log_e=log_e, log_threshold=20.6, rate_baseline=before, rate_now=now,
        **{"requests_now": 240, "detected_request": 48_000 + feature % 90, **fields},  # type: ignore[arg-type]
    )  # fmt: skip


FEATURES = [
    drift(1_204, 0.031, 0.402, 31.2, label="mentions of early repayment"),
    drift(88, 0.0, 0.096, 26.0, label="a currency that is not the account's"),
    drift(3_310, 0.214, 0.041, 22.9),
    drift(917, 0.008, 0.067, 21.4, label="dates in the far past"),
    drift(2_045, 0.052, 0.121, 20.9),
]
SCORES = [
    ScoreDrift(score="mahalanobis_sq", direction="up", group="t0", log_e=17.4, log_threshold=14.2,
               baseline_median=571.0, now_median=812.0, detected_request=47_991),
]  # fmt: skip


def incident_id(of: Lane, number: int) -> str:
    return f"{of.lane_id[:8]}{number:08x}"


def story(
    of: Lane, number: int, *, opened_at_ms: int, resolved: bool, features: list[FeatureDrift] = FEATURES
) -> list[Alert]:
    def at(k: int, transition: str, severity: str, share: float, groups: list[str]) -> Alert:
        place = Position(partition=1, offset=number * 10 + k)
        listed = [
            structs.replace(f, log_e=f.log_e - 6 * (1 - share))
            for f in features[: max(1, round(len(features) * share))]
        ]
        return Alert(
            event_id=f"{of.lane_id}{number:014x}{k:02x}", lane=of, incident_id=incident_id(of, number),
            transition=transition, severity=severity, status="ok" if transition == "resolved" else severity,
            cause_hint="data_shift", groups=groups, features_drifted=len(listed), features=listed, scores=SCORES,
            opened_request=47_991, request=47_991 + 60 * k, change_estimate_request=47_940,
            at_ms=opened_at_ms + k * 40_000, position=place, baseline_version=NOW_MS - 9_000_000,
        )  # fmt: skip  # type: ignore[arg-type]

    told = [at(0, "opened", "warning", 0.2, ["t0"]), at(1, "escalated", "critical", 0.6, ["t0", "features"])]
    told.append(at(2, "updated", "critical", 1.0, ["t0", "features"]))
    return [*told, at(9, "resolved", "critical", 1.0, ["t0", "features"])] if resolved else told


def ack(of: Lane, incident: str, author: str = "ada", reason: str = "known campaign, ends on Friday") -> Annotation:
    return Annotation(
        event_id="ac" * 16, lane=of, kind="ack", incident_id=incident, author=author, reason=reason,
        at_ms=NOW_MS - 3 * MINUTE_MS,
    )  # fmt: skip


def card(alert: Alert, said: Said | None = None) -> IncidentCard:
    return IncidentCard(
        incident_id=alert.incident_id, severity="critical", opened_request=alert.opened_request,
        opened_at_ms=alert.at_ms, cause_hint=alert.cause_hint, features_drifted=alert.features_drifted,
        features=alert.features, scores=alert.scores, ack=said,
    )  # fmt: skip


def give_story(model: Model, told: list[Alert]) -> AlertState:
    feed(model, "interp.alerts", *map(encode_alert, told))
    feed(model, "interp.alert-state", encode_alert_state(last := alert_state(told[-1])))
    return last


def baseline(of: Lane, version: int, author: str = "detect", reason: str = "end of calibrate") -> list[Envelope]:
    header = BaselineHeader(
        lane=of, version=version, projector_version=version - 1, requests=N_BASELINE, fit_requests=2_000,
        tokens=182_133, too_short=41, provisional=False, explained_variance=0.823, l0=40.9, norm=170.4,
        massive_share=0.0004,
    )  # fmt: skip
    arrays = {"requests_fired": np.zeros(8, np.int64), "calibration_scores": np.zeros((4, 5), np.float32)}
    return encode_control(make_control("baseline", header, arrays, author, reason))


def cut(partition: int, a: int, b: int, of: Lane, **fields: object) -> Cut:
    given: dict[str, object] = {
        "records": b - a, "counted_records": b - a - 2, "pending_records": 0,
        "not_counted": {"duplicate": 1, "rejected": 1}, "rejected_by_reason": {"non_finite": 1},
        "lanes": {of.lane_id: LaneCount(lane=of, requests=b - a - 2, tokens=40 * (b - a))},
    }  # fmt: skip
    return Cut(
        topic="interp.activations",
        partition=partition,
        a=a,
        b=b,
        read_from=b,
        closed_at_ms=NOW_MS - 4_000,
        **{**given, **fields},
    )  # type: ignore[arg-type]


def beat(process_id: str, kind: str, age_s: float = 2.0, **fields: object) -> Heartbeat:
    given = {"partitions": [f"interp.windows/{k}" for k in range(4)], "counters": {"records": 48_590, "alerts": 3}}
    return Heartbeat(
        process_id=process_id, kind=kind, as_of_ms=NOW_MS - round(age_s * 1000), started_at_ms=NOW_MS - 7_200_000,
        version="0.1.0", **{**given, **fields},
    )  # type: ignore[arg-type]  # fmt: skip


def fleet(model: Model, lanes: int = 50, incidents: int = 200) -> None:
    """A fleet in which the first lanes are in trouble of every kind, and every lane has a history."""
    for k in range(lanes):
        of = lane(k)
        for number in range(incidents - (1 if k < 3 else 0)):
            opened_at_ms = NOW_MS - (incidents - number + 1) * 7_200_000
            give_story(model, story(of, number + 1, opened_at_ms=opened_at_ms, resolved=True))
        feed(model, "interp.control", *baseline(of, NOW_MS - 9_000_000))
        for point in range(60):
            health = Health(
                explained_variance=0.823 - (0.0002 * point if k else 0.0011 * point) + 0.004 * math.sin(point * 1.7),
                explained_variance_baseline=0.823,
                l0=40.9 + 0.6 * math.sin(point * 2.1) + (0.05 * point if not k else 0),
                l0_baseline=40.9,
                norm=170.4 + math.cos(point),
                norm_baseline=170.4,
            )
            moment = status(of, closed_at_ms=NOW_MS - (61 - point) * 5_000, health=health)
            feed(model, "interp.status", encode_status(moment))
        feed(model, "interp.status", encode_status(_status_of(model, k, of, incidents)))
        for part in (k % 6,):
            start = 1_000 * (k // 6)
            feed(model, "interp.cuts", encode_cut(cut(part, start, start + 1_000, of)))
    beats = (
        beat("encode-0", "encode"),
        beat("detect-0", "detect"),
        beat("detect-1", "detect", 700.0),
        beat("notify-0", "notify", sinks_failing=["pager"]),
    )
    feed(model, "interp.heartbeat", *map(encode_heartbeat, beats))


def _status_of(model: Model, k: int, of: Lane, incidents: int) -> Status:
    if k < 3:
        told = story(of, incidents, opened_at_ms=NOW_MS - (8 + 17 * k) * MINUTE_MS, resolved=False)
        give_story(model, told)
        said = None
        if k == 1:
            note = ack(of, told[0].incident_id)
            feed(model, "interp.alerts", encode_annotation(note))
            said = Said(author=note.author, reason=note.reason, at_ms=note.at_ms)
        state = "warning" if k == 2 else "critical"
        return status(of, state, reason="data_shift", incident=card(told[-1], said))
    if k == 3:
        return status(of, "ok", age_s=400.0)
    if k == 4:
        return status(of, "blind", reason="no window for longer than status.blind_after_s")
    if k == 5:
        return status(of, "learning", learning="fit 812/2000", requests=812, baseline=None)
    if k == 6:
        return status(
            of,
            silence=Said(author="grace", reason="planned roll-out", at_ms=NOW_MS - 60_000, until_ms=NOW_MS + 3_600_000),
        )
    return status(of)
