"""What ENCODE and DETECT hand to their boards."""

from __future__ import annotations

from typing import get_args

from stream_interp.detect.observed import Shown, detect_board
from stream_interp.detect.outgoing import Outgoing
from stream_interp.detect.partition import Told
from stream_interp.encode.observed import by_reason, encode_board, encode_readings, nothing_left_out
from stream_interp.observe.board import Reading
from stream_interp.records.alert import Alert, Position
from stream_interp.records.cut import Reason
from stream_interp.records.dlq import REASONS
from stream_interp.records.lane import Lane
from tests.observe.test_metrics import status

ALERT = Alert(
    event_id="e", lane=Lane(model_id="m", hook_name="h"), incident_id="i", transition="opened", severity="critical",
    status="critical", cause_hint="features", at_ms=1, position=Position(partition=0, offset=1),
)  # fmt: skip


def test_a_stage_that_has_not_begun_misses_everything() -> None:
    assert encode_board().snapshot.missing == ("sae_loaded", "assignment_received")
    assert detect_board().snapshot.missing == ("assignment_received", "state_restored")


def test_detect_is_ready_with_an_assignment_that_may_be_empty_and_restored_lanes() -> None:
    def missing(*, assigned: bool, restored: bool) -> tuple[str, ...]:
        return Shown().snapshot({}, (), assigned=assigned, restored=restored).missing

    assert missing(assigned=True, restored=True) == ()
    assert missing(assigned=True, restored=False) == ("state_restored",)
    assert missing(assigned=False, restored=True) == ("assignment_received", "state_restored")


def test_detect_shows_what_its_transactions_told_and_forgets_lanes_of_others() -> None:
    shown, one, two = Shown(), status(1), status(2)
    shown.committed(Outgoing(Told(alerts=[ALERT]), statuses=[one, two]), saved_at_ms=5_000)
    shown.committed(Outgoing(statuses=[status(1, "critical")]))
    shown.forget([two.lane.lane_id, "never seen"])
    snapshot = shown.snapshot({"windows": 3}, (), assigned=True, restored=True)
    assert [s.state for s in snapshot.statuses] == ["critical"]
    assert Reading("alerts", 1, ("opened", "critical")) in snapshot.readings
    assert Reading("alerts", 0, ("blind", "critical")) in snapshot.readings
    assert Reading("windows_ticked", 3) in snapshot.readings
    assert Reading("last_checkpoint_timestamp_seconds", 5.0) in snapshot.readings


def test_without_a_checkpoint_its_age_is_not_shown() -> None:
    readings = Shown().snapshot({}, (), assigned=True, restored=True).readings
    assert "last_checkpoint_timestamp_seconds" not in {r.metric for r in readings}


def test_every_reason_is_there_from_zero() -> None:
    account = nothing_left_out()
    account.update(by_reason("records_rejected", [("empty", 2)]))
    readings = {(r.metric, r.labels): r.value for r in encode_readings({"records": 9}, account, 77)}
    assert readings["records_rejected", ("empty",)] == 2
    assert readings["records_rejected", ("oversized",)] == 0
    assert readings["records_not_counted", ("expired",)] == 0
    assert readings["records", ()] == 9
    assert readings["cuts", ()] == 0
    assert readings["sae_memory_bytes", ()] == 77
    assert len(account) == len(REASONS) + len(get_args(Reason))
