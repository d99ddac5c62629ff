"""Series as promtool writes them: a fleet that is well, and for each rule what makes it fire."""

from __future__ import annotations

Series = dict[str, str]

EXPIRED = 'stream_interp_records_not_counted_total{process="encode", reason="expired"}'
_LANE = 'instance="d", lane_id="L"'

QUIET: Series = {
    'up{job="stream-interp", instance="e"}': "1x40",
    'stream_interp_process_up{process="encode", instance="e"}': "1x40",
    'stream_interp_process_up{process="detect", instance="d"}': "1x40",
    'stream_interp_process_up{process="notify", instance="n"}': "1x40",
    'stream_interp_process_ready{process="encode", instance="e"}': "0x5 1x35",
    f'stream_interp_lane_info{{{_LANE}, model_id="m", hook_name="h"}}': "1x40",
    f'stream_interp_lane_state{{{_LANE}, state="integrity_error"}}': "0x40",
    f'stream_interp_lane_state{{{_LANE}, state="blind"}}': "0x40",
    f'stream_interp_lane_incident_open{{{_LANE}, severity="critical"}}': "1x40",
    f"stream_interp_lane_incident_acknowledged{{{_LANE}}}": "1x40",
    f"stream_interp_lane_silenced{{{_LANE}}}": "0x40",
    f"stream_interp_lane_status_as_of_timestamp_seconds{{{_LANE}}}": "0+60x40",
    f"stream_interp_lane_requests_seen_total{{{_LANE}}}": "0+100x40",
    f"stream_interp_lane_requests_counted_total{{{_LANE}}}": "0+95x40",
    # a lane that learns counts little, a lane without traffic nothing: neither is a fault
    'stream_interp_lane_info{instance="d", lane_id="learns", model_id="m", hook_name="h2"}': "1x40",
    'stream_interp_lane_state{instance="d", lane_id="learns", state="learning"}': "1x40",
    'stream_interp_lane_requests_seen_total{instance="d", lane_id="learns"}': "0+100x40",
    'stream_interp_lane_requests_counted_total{instance="d", lane_id="learns"}': "0+10x40",
    'stream_interp_lane_info{instance="d", lane_id="idle", model_id="m", hook_name="h3"}': "1x40",
    'stream_interp_lane_requests_seen_total{instance="d", lane_id="idle"}': "100x40",
    'stream_interp_lane_requests_counted_total{instance="d", lane_id="idle"}': "50x40",
    # far behind but catching up; and behind for a moment only
    'stream_interp_consumer_lag_records{process="encode", partition="0"}': "90000-2000x40",
    'stream_interp_consumer_lag_records{process="encode", partition="1"}': "0x20 5000 0x20",
    'stream_interp_records_total{process="encode", instance="e"}': "0+1000x40",
    'stream_interp_records_rejected_total{process="encode", instance="e", reason="empty"}': "0+5x40",
    EXPIRED: "7x40",
    'stream_interp_transactions_aborted_total{process="encode"}': "0x20 1x20",
    'stream_interp_last_checkpoint_timestamp_seconds{process="detect", instance="d"}': "0+60x40",
    'stream_interp_partitions_assigned{process="detect", instance="d"}': "6x40",
    # a standby without partitions has nothing to save
    'stream_interp_last_checkpoint_timestamp_seconds{process="detect", instance="d2"}': "0x40",
    'stream_interp_partitions_assigned{process="detect", instance="d2"}': "0x40",
    'stream_interp_lanes_not_exported{process="detect"}': "0x40",
    'stream_interp_sink_failing{sink="slack"}': "0x20 1 0x20",
    'stream_interp_delivery_queue_length{sink="slack"}': "3x20 100x2 3x20",
}

_AWAY = "_x40"  # no sample at all

FIRING: dict[str, Series] = {
    "StreamInterpLaneIntegrityError": {f'stream_interp_lane_state{{{_LANE}, state="integrity_error"}}': "1x40"},
    "StreamInterpLaneBlind": {f'stream_interp_lane_state{{{_LANE}, state="blind"}}': "1x40"},
    "StreamInterpIncidentCritical": {f"stream_interp_lane_incident_acknowledged{{{_LANE}}}": "0x40"},
    "StreamInterpStatusStale": {f"stream_interp_lane_status_as_of_timestamp_seconds{{{_LANE}}}": "0x40"},
    "StreamInterpCoverageLow": {f"stream_interp_lane_requests_counted_total{{{_LANE}}}": "0+80x40"},
    "StreamInterpTargetDown": {'up{job="stream-interp", instance="e"}': "0x40"},
    "StreamInterpEncodeAbsent": {'stream_interp_process_up{process="encode", instance="e"}': _AWAY},
    "StreamInterpDetectAbsent": {'stream_interp_process_up{process="detect", instance="d"}': _AWAY},
    "StreamInterpNotifyAbsent": {'stream_interp_process_up{process="notify", instance="n"}': "0x40"},
    "StreamInterpStuck": {'stream_interp_process_up{process="encode", instance="e"}': "0x40"},
    "StreamInterpNotReady": {'stream_interp_process_ready{process="encode", instance="e"}': "0x40"},
    "StreamInterpLagGrowing": {'stream_interp_consumer_lag_records{process="encode", partition="0"}': "2000+100x40"},
    "StreamInterpDeadLetters": {
        'stream_interp_records_rejected_total{process="encode", instance="e", reason="empty"}': "0+20x40"
    },
    "StreamInterpRecordsExpired": {EXPIRED: "0x30 9x10"},
    "StreamInterpTransactionsAborted": {'stream_interp_transactions_aborted_total{process="encode"}': "0+1x40"},
    "StreamInterpCheckpointOld": {
        'stream_interp_last_checkpoint_timestamp_seconds{process="detect", instance="d"}': "0x40"
    },
    "StreamInterpLanesNotExported": {'stream_interp_lanes_not_exported{process="detect"}': "5x40"},
    "StreamInterpSinkFailing": {'stream_interp_sink_failing{sink="slack"}': "1x40"},
    "StreamInterpDeliveryQueueLong": {'stream_interp_delivery_queue_length{sink="slack"}': "100x40"},
    "StreamInterpWatchdog": {},
}
