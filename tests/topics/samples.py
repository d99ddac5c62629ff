"""One sample of every record, the same on every run: what the examples show and the record tests start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_interp.records.alert import (
    Alert,
    CauseEvidence,
    FeatureDrift,
    Position,
    Said,
    ScoreDrift,
    alert_state,
    encode_alert,
    encode_alert_state,
)
from stream_interp.records.annotation import encode_annotation, make_annotation
from stream_interp.records.arrays import pack
from stream_interp.records.checkpoint import encode_checkpoint, make_checkpoint
from stream_interp.records.control import (
    MARKER_TYPE,
    BaselineHeader,
    EvidenceRoot,
    Marker,
    Order,
    ProjectorHeader,
    Sight,
    encode_control,
    make_control,
    make_order,
    read_order,
)
from stream_interp.records.cut import Cut, LaneCount, OpenRequest, encode_cut
from stream_interp.records.delivery import Delivery, encode_delivery
from stream_interp.records.dlq import DeadLetter, base64_headers, encode_dead_letter
from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.example import Example, encode_example
from stream_interp.records.group_keys import BUCKETS
from stream_interp.records.heartbeat import Heartbeat, encode_heartbeat
from stream_interp.records.lane import Lane
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.records.status import (
    BaselineCard,
    Coverage,
    Health,
    IncidentCard,
    Status,
    encode_status,
)
from stream_interp.records.window import SCORES, CutRef, LaneSums, Window, WindowHeader, encode_window

AT_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
D_IN, D_SAE, REQUESTS = 4, 8, 3
LANE = Lane(model_id="credit-risk", hook_name="hidden", model_revision="2026-01", sae_fingerprint="ab" * 32)
POSITION = Position(partition=2, offset=41)


def _floats(*shape: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape)


SNAPSHOT = Snapshot(
    model_id=LANE.model_id, hook_name=LANE.hook_name, model_revision=LANE.model_revision, request_id="application-17",
    acts=_floats(5, D_IN).astype(np.float16), acts_dtype="float16", positions=np.arange(5, dtype=np.int32),
    special_mask=np.array([True, False, False, False, False]), request_tokens=5, group_key="applicant-9",
    segment="cards",
)  # fmt: skip
SNAPSHOT_CHUNK = Snapshot(
    model_id=LANE.model_id, hook_name=LANE.hook_name, request_id="application-18", acts=_floats(2, D_IN).astype("f4"),
    acts_dtype="float32", chunk=1, chunks=3, request_tokens=7,
)  # fmt: skip

_LENGTHS = np.bincount(length_bins(np.array([5, 5, 40, 3])), minlength=BINS).astype(np.int64)
_STARTS = np.bincount(length_bins(np.array([1, 1, 1, 0])), minlength=BINS).astype(np.int64)
_HEADER = WindowHeader(
    lane=LANE, cut=CutRef(topic="interp.activations", partition=0, a=100, b=107), requests=REQUESTS, tokens=50,
    not_counted={"duplicate": 1, "too_short": 1}, closed_at_ms=AT_MS, acts_dtype="float16", compute_dtype="bfloat16",
    projector_version=AT_MS - 1, unit_tokens=5, tier="T2", d_in=D_IN, d_sae=D_SAE,
    sums=LaneSums(error_tokens=50, x_sq_sum=210.0, err_sq_sum=12.5, x_dot_xhat=198.0, xhat_sq_sum=190.0, l0_sum=90.0,
                  norm_sum=101.0),
    strata={"short": 1, "block1": 1}, segments={"cards": 2, "loans": 1},
)  # fmt: skip
_FEATURES = {
    "feature_ids": np.array([1, 6], np.int32),
    "requests_fired": np.array([3, 1], np.int32),
    "tokens_fired": np.array([44, 2], np.int64),
    "act_sum": np.array([51.5, 1.25]),
    "act_sq_sum": np.array([70.0, 0.8]),
    "mag_sum": np.array([2.5, 0.4]),
    "request_max": np.array([2.0, 0.75], np.float32),
    "x_sum": _floats(D_IN),
    "length_histogram": _LENGTHS,
    "start_histogram": _STARTS,
    "request_scores": _floats(REQUESTS, len(SCORES)).astype(np.float32),
}
_OF_GROUPS = {  # of looked_at(D_SAE) = D_SAE features
    "group_requests": np.bincount([2, 2, 200], minlength=BUCKETS).astype(np.int64),
    "group_cells": np.array([2 * D_SAE + 1, 200 * D_SAE + 6], np.int32),
    "group_fired": np.array([2, 1], np.int32),
}
_OF_STRATUM = {
    "feature_ids": np.array([6], np.int32),
    "requests_fired": np.array([1], np.int32),
    "mag_sum": np.array([0.2]),
    "request_scores": _floats(1, len(SCORES)).astype(np.float32),
}
_STRATA = {f"{s}.{name}": a for s in _HEADER.strata for name, a in _OF_STRATUM.items()}
WINDOW = Window(_HEADER, _FEATURES | _OF_GROUPS | _STRATA)
_FIT_ARRAYS = {"fit_sum": _floats(D_IN), "fit_scatter": _floats(D_IN * (D_IN + 1) // 2).astype(np.float32)}
_FIT_HEADER = WindowHeader(
    lane=LANE, cut=CutRef(topic="interp.activations", partition=0, a=93, b=100), requests=REQUESTS, tokens=50,
    closed_at_ms=AT_MS - 5_000, acts_dtype="float16", proposed_dtype="bfloat16", projector_version=0, unit_tokens=0,
    tier="T2", d_in=D_IN, d_sae=D_SAE, sums=LaneSums(error_tokens=50, fit_tokens=50),
)  # fmt: skip
WINDOW_FIT = Window(_FIT_HEADER, _FEATURES | _FIT_ARRAYS)

CUT = Cut(
    topic="interp.activations", partition=0, a=100, b=107, read_from=106, closed_at_ms=AT_MS, records=7,
    counted_records=4, pending_records=1, lanes={LANE.lane_id: LaneCount(lane=LANE, requests=3, tokens=50)},
    not_counted={"rejected": 1, "duplicate": 1}, rejected_by_reason={"non_finite": 1},
    open={"9f2c": OpenRequest(first_offset=106, records=1, born_ms=AT_MS - 200)},
)  # fmt: skip
FEATURE = FeatureDrift(
    feature=6, direction="up", log_e=21.5, log_threshold=20.6, rate_baseline=0.01, rate_now=0.35, detected_request=412
)
SCORE = ScoreDrift(
    score="mahalanobis_sq", direction="up", group="t0", log_e=17.0, log_threshold=14.2, baseline_median=3.9,
    now_median=11.2, detected_request=407,
)  # fmt: skip
CAUSES = [
    CauseEvidence(
        cause="pipeline", points=False, text="Nothing shows that the change is in some input partitions alone.",
        numbers={"partitions": 2.0, "requests": 320.0},
    ),
    CauseEvidence(cause="data_shift", points=True, text="Nothing points elsewhere. What moved: 1 feature."),
]  # fmt: skip
ALERT = Alert(
    event_id="0f" * 16, lane=LANE, incident_id=f"{LANE.lane_id}-1", transition="opened", severity="critical",
    status="critical", cause_hint="data_shift", groups=["t0", "features"], features_drifted=1, features=[FEATURE],
    scores=[SCORE], by_effect=[FEATURE], causes=CAUSES, opened_request=412, request=412, evidence_request=407,
    change_estimate_request=401, at_ms=AT_MS, position=POSITION,
    window_id=WINDOW.header.window_id, baseline_version=AT_MS - 1,
)  # fmt: skip
ACK = make_order(
    Order(kind="ack", lane=LANE, version=AT_MS + 60_000, incident_id=ALERT.incident_id), "ada", "known campaign"
)
SILENCE = make_order(
    Order(kind="silence", lane=LANE, version=AT_MS + 61_000, until_ms=AT_MS + 3_661_000), "ada", "planned roll-out"
)
EVIDENCE_ROOT = make_order(
    EvidenceRoot(lane=LANE, version=AT_MS + 62_000, incident_id=ALERT.incident_id, root_sha256="ab" * 32),
    "ada", "evidence pack",
)  # fmt: skip
ANNOTATION = make_annotation(ACK, read_order(ACK))
SAID = Said(author="ada", reason="known campaign", at_ms=AT_MS + 60_000)
ALERT_STATE = alert_state(ALERT, ack=SAID)
INCIDENT = IncidentCard(
    incident_id=ALERT.incident_id, severity="critical", opened_request=412, opened_at_ms=AT_MS,
    cause_hint="data_shift", features_drifted=1, features=[FEATURE], scores=[SCORE], by_effect=[FEATURE],
    causes=CAUSES, evidence_request=407, ack=SAID,
)  # fmt: skip
STATUS = Status(
    lane=LANE, state="ok", as_of_ms=AT_MS + 900, closed_at_ms=AT_MS, position=POSITION, sequence=3, requests=400,
    coverage=Coverage(requests_counted=400, requests_seen=402, reasons={"incomplete": 2}, features_armed=7,
                      features_not_covered=1),
    health=Health(explained_variance=0.81, explained_variance_baseline=0.82, l0=1.8, l0_baseline=1.7),
    baseline=BaselineCard(version=AT_MS - 1, requests=8_000, tokens=40_000, provisional=False), lag_age_s=0.2,
)  # fmt: skip
STATUS_CRITICAL = Status(
    lane=LANE, state="critical", reason="features and t0 crossed", as_of_ms=AT_MS + 900, closed_at_ms=AT_MS,
    position=POSITION, sequence=4, requests=412, baseline=STATUS.baseline, incident=INCIDENT,
    second_opinions={"adwin.explained_variance": 1},
)  # fmt: skip
PROJECTOR = make_control(
    "projector",
    ProjectorHeader(
        lane=LANE, version=AT_MS - 1, unit_tokens=5, blocks=2, d_in=D_IN, d_sae=D_SAE, fit_requests=2_000,
        fit_tokens=10_000, shrinkage=0.0, kept_directions=3, compute_dtype="bfloat16",
    ),
    {
        "mean": _floats(D_IN).astype(np.float32),
        "whitening": _floats(3, D_IN).astype(np.float32),
        "cap": np.full(D_SAE, 2.0, np.float32),
        "surprise": np.linspace(0.0, 7.6, D_SAE).astype(np.float32),
    },
    "detect", "end of fit",
)  # fmt: skip
BASELINE = make_control(
    "baseline",
    BaselineHeader(
        lane=LANE, version=AT_MS, projector_version=AT_MS - 1, requests=REQUESTS, fit_requests=2_000, tokens=50,
        too_short=0, provisional=True, explained_variance=0.82, l0=1.7, norm=2.0, massive_share=0.0,
        compute_dtype="bfloat16", strata={"short": 2}, unit_tokens=5, stationary_p=0.41,
        first_closed_at_ms=AT_MS - 900_000, last_closed_at_ms=AT_MS, first_offset=17, last_offset=39,
        code_version="0.1.0",
        sight=Sight(features_armed=6, features_rare=8, features_not_covered=2, sla_requests=10_000,
                    detectable_ratio={"0.5": 5.0, "0.9": None}),
    ),
    {
        "requests_fired": np.arange(D_SAE, dtype=np.int64) % REQUESTS,
        "calibration_scores": _floats(REQUESTS, len(SCORES)).astype(np.float32),
        "mag_sum": np.linspace(0.0, 1.5, D_SAE),
        "length_histogram": _LENGTHS,
        "start_histogram": _STARTS,
        "hour_requests": np.bincount([0, 1, 1], minlength=168).astype(np.int64),
        "hour_fired": np.bincount([0, 1], [3.0, 4.0], minlength=168),
        "short.requests_fired": np.arange(D_SAE, dtype=np.int64) % 2,
        "short.mag_sum": np.linspace(0.0, 0.5, D_SAE),
        "short.calibration_scores": _floats(2, len(SCORES)).astype(np.float32),
    },
    "detect", "end of calibrate",
)  # fmt: skip
MARKER = Marker(kind="baseline", lane=LANE, version=BASELINE.manifest.version, sha256=BASELINE.manifest.sha256)
CHECKPOINT = make_checkpoint(LANE, 7, POSITION, "0.1.0", "cd" * 32, pack(PROJECTOR.manifest, {"M": _floats(2, D_SAE)}))
HEARTBEAT = Heartbeat(
    process_id="encode-0", kind="encode", as_of_ms=AT_MS, started_at_ms=AT_MS - 60_000, version="0.1.0",
    partitions=["interp.activations/0"], counters={"requests": 3},
)  # fmt: skip
DEAD_LETTER = DeadLetter(
    reason="non_finite", detail="non_finite: found NaN or infinity in acts, expected finite numbers",
    topic="interp.activations", partition=0, offset=103, timestamp_ms=AT_MS, key_base64="YXBwbGljYXRpb24tMTk=",
    headers_base64=base64_headers([("ce_type", b"interp.activation.snapshot.v1")]), value_bytes=312,
)  # fmt: skip
DELIVERY = Delivery(sink="webhook", event_id=ALERT.event_id, outcome="delivered", attempts=1, at_ms=AT_MS)
EXAMPLE = Example(lane=LANE, feature=6, request_id="application-17", position=3, activation=0.75, at_ms=AT_MS)


@dataclass(frozen=True)
class Sample:
    """A file under `topics/examples/` and the record in it."""

    file: str
    envelope: Envelope


SAMPLES = (
    Sample("snapshot.safetensors", encode_snapshot(SNAPSHOT, AT_MS)),
    Sample("snapshot_chunk.safetensors", encode_snapshot(SNAPSHOT_CHUNK, AT_MS)),
    Sample("window.safetensors", encode_window(WINDOW)[0]),
    Sample("window_fit.safetensors", encode_window(WINDOW_FIT)[0]),
    Sample("marker.json", json_record(LANE.lane_id, MARKER_TYPE, MARKER)),
    Sample("cut.json", encode_cut(CUT)),
    Sample("alert.json", encode_alert(ALERT)),
    Sample("annotation.json", encode_annotation(ANNOTATION)),
    Sample("alert_state.json", encode_alert_state(ALERT_STATE)),
    Sample("status.json", encode_status(STATUS)),
    Sample("status_critical.json", encode_status(STATUS_CRITICAL)),
    Sample("projector.safetensors", encode_control(PROJECTOR)[0]),
    Sample("baseline.safetensors", encode_control(BASELINE)[0]),
    Sample("order_ack.json", encode_control(ACK)[0]),
    Sample("order_silence.json", encode_control(SILENCE)[0]),
    Sample("evidence_root.json", encode_control(EVIDENCE_ROOT)[0]),
    Sample("control_manifest.json", encode_control(BASELINE)[-1]),
    Sample("checkpoint_manifest.json", encode_checkpoint(CHECKPOINT)[-1]),
    Sample("heartbeat.json", encode_heartbeat(HEARTBEAT)),
    Sample("dead_letter.json", encode_dead_letter(DEAD_LETTER, b"application-19")),
    Sample("delivery.json", encode_delivery(DELIVERY)),
    Sample("example.json", encode_example(EXAMPLE)),
)
