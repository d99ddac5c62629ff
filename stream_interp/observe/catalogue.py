"""Every metric, once: its type, its labels, what it tells. The prefix `stream_interp_` and the label `process` of
what is not a lane's come in `metrics.py`. No label ever holds a feature id or a request id.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One row. A counter's name gets `_total`."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    of_lane: bool = False


def _lane(text: str, *labels: str, kind: Literal["counter", "gauge"] = "gauge") -> Metric:
    return Metric(kind, text, ("lane_id", *labels), of_lane=True)


METRICS: dict[str, Metric] = {
    # every process
    "build_info": Metric("gauge", "Version of the package, always 1.", ("version",)),
    "process_up": Metric("gauge", "1 while the process's loop turns, 0 once it is stuck."),
    "process_ready": Metric("gauge", "1 once nothing is missing for readiness, see /readyz."),
    "process_loop_age_seconds": Metric("gauge", "Time since its loop last turned."),
    "partitions_assigned": Metric("gauge", "Input partitions that it holds."),
    "consumer_lag_records": Metric("gauge", "Offsets between it and the end of its input.", ("topic", "partition")),
    "records": Metric("counter", "Input records read."),
    "requests": Metric("counter", "Requests encoded (encode), or in windows ticked (detect)."),
    "transactions_aborted": Metric("counter", "Transactions that failed; their input was read again."),
    "busy_seconds": Metric("counter", "Time spent by phase; window is part of encode.", ("phase",)),
    # ENCODE
    "tokens": Metric("counter", "Tokens encoded."),
    "bytes": Metric("counter", "Bytes of activation records read."),
    "cuts": Metric("counter", "Cuts committed."),
    "records_rejected": Metric("counter", "Records that became dead letters.", ("reason",)),
    "records_not_counted": Metric("counter", "Records that a committed cut accounts for but no window.", ("reason",)),
    "sae_memory_bytes": Metric("gauge", "Memory of all loaded SAEs."),
    # DETECT
    "windows_ticked": Metric("counter", "Windows that updated a lane's tests, replayed ones too."),
    "unreadable_records": Metric("counter", "Records of the windows log that could not be used."),
    "alerts": Metric("counter", "Alerts written.", ("transition", "severity")),
    "last_checkpoint_timestamp_seconds": Metric("gauge", "When the lanes' states were last saved, Unix time."),
    "lanes": Metric("gauge", "Lanes by state, exported or not.", ("state",)),
    "lanes_not_exported": Metric("gauge", "Lanes left out of the lane metrics: the best-off beyond 1,000."),
    "incidents_open": Metric("gauge", "Open incidents.", ("severity",)),
    # a lane; its names stand in lane_info alone
    "lane_info": _lane(
        "Names of a lane, always 1.", "tenant", "model_id", "model_revision", "hook_name", "sae_fingerprint"
    ),
    "lane_state": _lane("1 for the lane's state, 0 for the others.", "state"),
    "lane_severity": _lane("The lane's state as a number: 0 ok … 6 integrity_error."),
    "lane_status_as_of_timestamp_seconds": _lane("When DETECT last vouched for the lane, Unix time."),
    "lane_window_closed_timestamp_seconds": _lane("When the lane's latest window was closed, Unix time."),
    "lane_lag_age_seconds": _lane("Age of the oldest window not yet read."),
    "lane_requests_seen": _lane("Requests of the lane, counted or not.", kind="counter"),
    "lane_requests_counted": _lane("Requests that fed tests or the baseline.", kind="counter"),
    "lane_requests_not_counted": _lane("The rest, by reason.", "reason", kind="counter"),
    "lane_features_armed": _lane("Features under test."),
    "lane_features_not_covered": _lane("Features whose drift could not be seen in time."),
    "lane_baseline_timestamp_seconds": _lane("When the lane's baseline was made, Unix time."),
    "lane_explained_variance": _lane("Explained variance of recent windows."),
    "lane_explained_variance_baseline": _lane("The same, in the baseline."),
    "lane_l0": _lane("Features per token, recent windows."),
    "lane_l0_baseline": _lane("The same, in the baseline."),
    "lane_norm": _lane("Mean squared norm of activations, recent windows."),
    "lane_norm_baseline": _lane("The same, in the baseline."),
    "lane_incident_open": _lane("1 for the severity of the lane's open incident.", "severity"),
    "lane_incident_acknowledged": _lane("1 while the open incident is acknowledged."),
    "lane_incident_features": _lane("Features listed in the open incident."),
    "lane_silenced": _lane("1 while notifications of the lane are held back."),
    # NOTIFY
    "deliveries": Metric("counter", "Notifications by sink and outcome.", ("sink", "outcome")),
    "delivery_queue_length": Metric("gauge", "Notifications waiting for a sink.", ("sink",)),
    "sink_failing": Metric("gauge", "1 while the sink's last delivery was given up.", ("sink",)),
    "delivery_latency_seconds": Metric(
        "histogram", "From a notification's event to the sink's answer.", ("sink",)
    ),
}  # fmt: skip
