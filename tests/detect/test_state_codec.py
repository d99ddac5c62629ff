"""A state goes through bytes bit for bit, and goes on deciding the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state_codec import StateHeader, dump_state, load_state
from stream_interp.errors import IntegrityError
from stream_interp.records.arrays import pack, unpack
from tests.detect.log import LANE, SETTINGS, consumed, fresh, ids, replayed, story, window_records

RECORDS = consumed(window_records(story().windows))
WHOLE, TOLD = replayed(RECORDS)


def restored(partition: WindowsPartition) -> WindowsPartition:
    states = [load_state(dump_state(state)) for state in partition.lanes.values()]
    return WindowsPartition(0, states, partition.read_from, partition.done, SETTINGS)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, len(RECORDS)), min_size=1, max_size=4).map(sorted))
def test_wherever_it_is_restored_the_rest_of_the_story_is_the_same(stops: list[int]) -> None:
    partition, begin, alerts = fresh(), 0, []
    for stop in [*stops, len(RECORDS)]:
        partition, told = replayed(RECORDS[begin:stop], partition)
        partition, begin = restored(partition), stop
        alerts += told.alerts
    assert dump_state(partition.lanes[LANE.lane_id]) == dump_state(WHOLE.lanes[LANE.lane_id])
    assert alerts == TOLD.alerts


def test_the_story_goes_through_every_phase() -> None:
    seen = [replayed(RECORDS[:k])[0].lanes[LANE.lane_id] for k in range(1, len(RECORDS))]
    assert {state.phase for state in seen} == {"fit", "calibrate", "armed"}
    assert any(state.incident is not None and state.incident.features_drifted > 1 for state in seen)
    assert ids(TOLD.alerts)


def test_types_and_dtypes_survive() -> None:
    before = WHOLE.lanes[LANE.lane_id]
    after = load_state(dump_state(before))
    assert after.baseline is not None
    assert before.baseline is not None
    assert after.baseline.header == before.baseline.header
    assert after.opinions == before.opinions
    assert after.recent_scores.dtype == np.float32
    assert after.health_now is not None
    assert before.health_now is not None
    assert after.health_now.sums == before.health_now.sums  # decayed counts are floats
    assert after.tests is not None
    assert before.tests is not None
    np.testing.assert_array_equal(after.tests.unit.features["rate up"].p, before.tests.unit.features["rate up"].p)


def test_what_an_incident_lists_stays_in_the_order_in_which_it_joined() -> None:
    """Alerts list equal evidence in that order: a restart must not change what they say."""
    state = WHOLE.lanes[LANE.lane_id]
    assert state.incident is not None
    again = load_state(dump_state(state))
    assert again.incident is not None
    assert len(state.incident.listed) > 1
    assert list(again.incident.listed) == list(state.incident.listed)


def test_a_state_of_a_version_that_knew_no_orders_is_read() -> None:
    header, arrays = unpack(dump_state(WHOLE.lanes[LANE.lane_id]), StateHeader)
    older = {name: value for name, value in header.state.items() if name not in ("stories", "relearned")}
    state = load_state(pack(structs.replace(header, state=older), arrays))
    assert (state.stories, state.relearned) == ({}, 0)
    assert state.incident is not None


def test_a_state_of_a_version_that_knew_no_compute_dtype_is_read() -> None:
    learning = replayed(RECORDS[:2])[0].lanes[LANE.lane_id]
    for state in (learning, WHOLE.lanes[LANE.lane_id]):
        header, arrays = unpack(dump_state(state), StateHeader)
        older = {name: value for name, value in header.state.items() if not name.startswith("unencoded")}
        for part in ("learned", "projector"):
            if older[part]:
                older[part] = {k: v for k, v in older[part].items() if not k.endswith("_dtype")}
        again = load_state(pack(structs.replace(header, state=older), arrays))
        assert (again.compute_dtype, again.unencoded) == ("float32", False)
        assert dump_state(again) == dump_state(state)


@pytest.mark.parametrize("data", [b"", b"not a state", dump_state(WHOLE.lanes[LANE.lane_id])[:-100]])
def test_other_bytes_are_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        load_state(data)
