"""What lies on interp.state after any number of checkpoints is enough to begin again from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from stream_interp.detect.checkpoint import Checkpoints, Saved, read_saved, start_of
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state_codec import dump_state
from stream_interp.errors import IntegrityError
from stream_interp.records import checkpoint as records_checkpoint
from stream_interp.records.envelope import Envelope
from tests.detect.log import LANE, consumed, fresh, replayed, story, window_records

STORY = story()
RECORDS = consumed(window_records(STORY.windows))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_checkpoint, "PART_BYTES", 5_000)


def last_values(log: list[Envelope]) -> dict[str, bytes]:
    return {record.key.decode(): record.value or b"" for record in log}


def saves(stops: list[int]) -> tuple[list[list[Envelope]], list[bytes]]:
    """The records of the checkpoints after so many records, and the lane's state at each."""
    partition, checkpoints, begin, logs, states = fresh(), Checkpoints(Saved()), 0, [], []
    for stop in stops:
        partition, _ = replayed(RECORDS[begin:stop], partition)
        logs.append(checkpoints.of_all(partition))
        states.append(dump_state(partition.lanes[LANE.lane_id]))
        begin = stop
    return logs, states


def test_any_torn_end_leaves_the_checkpoint_before() -> None:
    logs, states = saves([10, 40, 90])
    whole = [record for log in logs[:2] for record in log]
    for end in range(len(logs[2]) + 1):
        saved = read_saved(last_values([*whole, *logs[2][:end]]))
        expected = 2 if end == len(logs[2]) else 1
        assert dump_state(saved.states[0]) == states[expected]
        assert saved.covered == [9, 39, 89][expected]


def test_a_new_lane_is_checkpointed_at_once_and_only_once() -> None:
    partition, checkpoints = fresh(), Checkpoints(Saved())
    replayed(RECORDS[:1], partition)
    assert checkpoints.of_new_lanes(partition)
    assert checkpoints.of_new_lanes(partition) == []
    assert checkpoints.of_all(partition) != []  # the first manifest of all covers this
    assert checkpoints.of_all(partition) == []


def test_a_dormant_lane_does_not_hold_the_restart_back() -> None:
    partition, checkpoints = fresh(), Checkpoints(Saved())
    dormant = structs.replace(STORY.windows[0].header, lane=structs.replace(LANE, hook_name="other"))
    first = window_records([replace(STORY.windows[0], header=dormant)])
    log = consumed([*first, *(r for r in window_records(STORY.windows))])
    replayed(log[:5], partition)
    written = checkpoints.of_all(partition)
    replayed(log[5:50], partition)
    again = checkpoints.of_all(partition)
    assert sum(record.key.decode().startswith(dormant.lane.lane_id) for record in again) == 1  # a manifest only
    saved = read_saved(last_values([*written, *again]))
    assert {m.covered.offset for m in saved.manifests.values()} == {49}
    assert start_of(saved, saved.covered, low=0, high=50, where="t") == 50


def test_a_restarted_writer_goes_on_in_the_other_slot() -> None:
    logs, states = saves([10])
    saved = read_saved(last_values(logs[0]))
    partition = WindowsPartition(0, saved.states, 10, 9, STORY.state.settings)
    replayed(RECORDS[10:30], partition)
    torn = Checkpoints(saved).of_all(partition)[:-1]
    assert dump_state(read_saved(last_values([*logs[0], *torn])).states[0]) == states[0]


def test_where_to_start() -> None:
    saved = read_saved(last_values(saves([10])[0][0]))
    assert start_of(Saved(), -1, low=0, high=0, where="t") == 0
    assert start_of(Saved(), -1, low=7, high=9, where="t") == 7
    assert start_of(saved, 9, low=3, high=10, where="t") == 10
    assert start_of(Saved(broken=["x"]), 5, low=0, high=9, where="t") == 0
    assert start_of(Saved(), 5, low=0, high=9, where="t") == 0


@pytest.mark.parametrize(
    ("lost", "done", "low", "high", "says"),
    [
        (False, 9, 11, 20, "older than the windows' retention"),
        (False, 9, 0, 5, "the log ends at 5"),
        (False, 9, 0, 0, "the log ends at 0"),
        (True, 9, 4, 20, "no usable checkpoint"),
    ],
)
def test_where_it_cannot_start(lost: bool, done: int, low: int, high: int, says: str) -> None:
    saved = Saved() if lost else read_saved(last_values(saves([10])[0][0]))
    with pytest.raises(IntegrityError, match=says):
        start_of(saved, done, low=low, high=high, where="t")


def test_a_lane_of_which_no_slot_is_whole_is_broken() -> None:
    values = last_values(saves([10])[0][0])
    del values[f"{LANE.lane_id}/0/0"]
    assert read_saved(values).broken == [LANE.lane_id]
    assert read_saved({f"{LANE.lane_id}/0/manifest": b"{"}).broken == [LANE.lane_id]
