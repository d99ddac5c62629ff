"""One windows partition in log order: chunks, repeats, silent replay, markers, records that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from stream_interp.detect.outgoing import Outgoing
from stream_interp.detect.partition import Progress, Told, WindowsPartition, read_progress
from stream_interp.detect.view import status_of
from stream_interp.errors import IntegrityError
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Marker, Versioned, make_control
from stream_interp.records.envelope import Envelope
from stream_interp.settings import DriftSettings
from tests.detect.lanes import Driver, requests
from tests.detect.log import LANE, SETTINGS, consumed, fresh, ids, marker_record, replayed, story, window_records

STORY = story()
RECORDS = consumed(window_records(STORY.windows, chunk_bytes=3_000))
WHOLE, TOLD = replayed(RECORDS)


def baseline_of(driver: Driver, version: int) -> Versioned:
    baseline = driver.state.baseline
    assert baseline is not None
    return make_control("baseline", structs.replace(baseline.header, version=version), baseline.arrays, "ann", "test")


def marker_for(baseline: Versioned) -> Marker:
    m = baseline.manifest
    return Marker(kind="baseline", lane=LANE, version=m.version, sha256=m.sha256, drift=DriftSettings())


def state_of(partition: WindowsPartition):
    return partition.lanes[LANE.lane_id]


def test_windows_lie_in_several_records_here() -> None:
    assert len(RECORDS) > len(STORY.windows)
    assert WHOLE.counters["windows"] == len(STORY.windows)
    assert ids(TOLD.alerts)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, len(RECORDS) - 1), st.integers(0, len(RECORDS) - 1))
def test_a_restart_replays_in_silence_what_was_told(saved: int, crashed: int) -> None:
    saved, crashed = sorted((saved, crashed))
    partition, first = replayed(RECORDS[:saved])
    states, read_from = list(partition.lanes.values()), partition.read_from
    partition, second = replayed(RECORDS[saved:crashed], partition)
    again = WindowsPartition(0, states, read_from, partition.done, SETTINGS)
    again, third = replayed(RECORDS[read_from:], again)
    assert ids([*first.alerts, *second.alerts, *third.alerts]) == ids(TOLD.alerts)
    assert again.caught_up
    assert again.read_from == len(RECORDS)


def test_a_hole_at_the_end_of_the_log_is_not_waited_for() -> None:
    whole, _ = replayed(RECORDS)
    again = WindowsPartition(0, whole.lanes.values(), whole.next_offset, whole.next_offset, SETTINGS)
    assert not again.caught_up
    again.reached_end()
    assert again.caught_up
    again = WindowsPartition(0, [], 0, whole.done, SETTINGS)
    again, told = replayed(RECORDS[:-1], again)
    assert not again.caught_up
    assert not told.alerts


def test_chunks_of_two_windows_may_interleave_and_a_restart_between_them_ticks_each_once() -> None:
    a, b = (window_records([w], chunk_bytes=3_000) for w in STORY.windows[:2])
    records = consumed([a[0], b[0], *a[1:], *b[1:]])
    first, _ = replayed(records[: 1 + len(a)])
    assert (first.counters["windows"], first.read_from) == (1, 1)
    again = WindowsPartition(0, first.lanes.values(), first.read_from, first.done, SETTINGS)
    again, _ = replayed(records[1:], again)
    assert again.counters["windows"] == 1
    assert state_of(again).seen == sum(w.header.requests for w in STORY.windows[:2])
    assert again.read_from == len(records)


def test_a_lane_ticks_a_window_that_is_read_twice_once() -> None:
    partition, _ = replayed(RECORDS)
    seen = state_of(partition).seen
    partition, told = replayed(RECORDS, partition)
    assert state_of(partition).seen == seen
    assert told == Told()


def test_a_baseline_takes_effect_where_its_marker_lies_and_makes_its_lane() -> None:
    baseline = baseline_of(STORY, version=7)
    partition, told = fresh(), Told()
    for record in consumed([marker_record(marker_for(baseline))] * 2):
        partition.take(record, lambda _: baseline, told)
    state = state_of(partition)
    assert state.phase == "armed"
    assert state.settings.drift == DriftSettings()
    assert told.changed == {LANE.lane_id}
    assert (state.position.offset, partition.done) == (1, 1)  # the second one changes nothing but the position
    assert state.baseline is not None
    assert state.baseline.header.version == 7


def test_a_marker_without_its_baseline_is_an_integrity_error_until_one_is_there() -> None:
    good, bad = baseline_of(STORY, version=9), baseline_of(STORY, version=8)
    log = consumed([*window_records(STORY.windows[:2]), *(marker_record(marker_for(b)) for b in (bad, good))])
    partition, told = replayed(log[:3])
    status = status_of(state_of(partition), 0, 0)
    assert (status.state, status.reason) == ("integrity_error", "missing_baseline")
    partition.take(log[3], lambda _: good, told)
    assert [a.transition for a in told.alerts] == ["integrity_error", "integrity_restored"]
    assert status_of(state_of(partition), 0, 0).state == "ok"


def test_every_fault_that_was_told_of_has_its_end() -> None:
    good, bad = baseline_of(STORY, version=9), baseline_of(STORY, version=8)
    first, *others = window_records(STORY.windows[:5])
    broken = first._replace(value=b"")
    markers = [marker_record(marker_for(b)) for b in (bad, good)]
    log = consumed([first, broken, markers[0], broken, *others, markers[1]])
    partition, told = replayed(log[:-1])
    assert status_of(state_of(partition), 0, 0).reason == "missing_baseline"
    partition.take(log[-1], lambda _: good, told)
    assert [(a.transition, a.cause_hint) for a in told.alerts] == [
        ("integrity_error", "unreadable_window"),
        ("integrity_restored", "unreadable_window"),
        ("integrity_error", "missing_baseline"),
        ("integrity_restored", "missing_baseline"),
    ]
    assert state_of(partition).stories == {}


def _with(record: Consumed, **headers: str) -> Consumed:
    return record._replace(headers=[(k, headers.get(k, v)) for k, v in record.headers])


BROKEN = {
    "truncated": lambda r: r._replace(value=r.value[:100]),
    "no value": lambda r: r._replace(value=None),
    "no headers": lambda r: r._replace(headers=[]),
    "chunk outside": lambda r: _with(r, ce_chunks="0"),
    "not a number": lambda r: _with(r, ce_chunk="x"),
    "another type": lambda r: _with(r, ce_type="interp.cut.v1"),
    "header not UTF-8": lambda r: r._replace(headers=[("ce_type", b"\xff")]),
    "marker without a value": lambda r: _with(r, ce_type="interp.marker.v1"),
}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN.keys())
def test_a_record_that_cannot_be_used_is_told_and_the_stream_goes_on(breaks) -> None:
    records = consumed(window_records(STORY.windows[:3]))
    records[1] = breaks(records[1])
    partition, told = replayed(records[:2])
    assert status_of(state_of(partition), 0, 0).state == "integrity_error"
    assert partition.counters["unreadable_records"] == 1
    partition, later = replayed(records[2:], partition)
    assert state_of(partition).seen == sum(w.header.requests for w in (STORY.windows[0], STORY.windows[2]))
    assert len(set(ids([*told.alerts, *later.alerts]))) == len(told.alerts) + len(later.alerts)


def test_a_window_that_lies_about_its_features_leaves_the_lane_as_it_was() -> None:
    lying = replace(STORY.windows[1], arrays=STORY.windows[1].arrays | {"feature_ids": np.array([10**6], np.int32)})
    partition, told = replayed(consumed(window_records([STORY.windows[0], lying, STORY.windows[2]])))
    assert state_of(partition).seen == 16
    assert [a.transition for a in told.alerts] == ["integrity_error", "integrity_restored"]


@pytest.mark.parametrize("claim", [{"requests": 2**40}, {"requests": 10**30}, {"d_sae": 2**40}, {"d_in": -1}])
def test_a_window_that_claims_absurd_numbers_stops_nothing_and_fills_no_memory(claim: dict[str, int]) -> None:
    for at in (0, 100):  # a lane that is new, and one that is armed
        header = structs.replace(STORY.windows[at].header, **claim)
        records = consumed(window_records([*STORY.windows[:at], replace(STORY.windows[at], header=header)]))
        partition, _ = replayed(records)
        assert partition.counters["unreadable_records"] == 1


def test_a_lane_of_endless_names_does_not_begin() -> None:
    """Its status would not fit into a record, and no transaction of DETECT would ever succeed again."""
    header = structs.replace(STORY.windows[0].header, lane=structs.replace(LANE, model_id="m" * 500_000))
    partition, told = replayed(consumed(window_records([replace(STORY.windows[0], header=header)])))
    assert (partition.lanes, told) == ({}, Told())
    assert partition.counters["unreadable_records"] == 1


def test_a_broken_record_of_an_unknown_lane_is_counted() -> None:
    partition, told = replayed(consumed([Envelope(b"?", [], b"")]))
    assert partition.counters["unreadable_records"] == 1
    assert told == Told()


def test_blind_holds_only_if_no_later_window_was_ticked() -> None:
    blind = [marker_record(Marker(kind="blind", lane=LANE, at_ms=1, after_position=p)) for p in (0, 1)]
    windows = window_records(STORY.windows[:3])
    void, told = replayed(consumed([windows[0], windows[1], blind[0]]))
    assert not state_of(void).blind
    assert told.alerts == []
    silent, told = replayed(consumed([windows[0], windows[1], blind[1], windows[2]]))
    assert [a.transition for a in told.alerts] == ["blind", "seeing"]
    assert not state_of(silent).blind


def test_progress_travels_in_the_metadata() -> None:
    partition, _ = replayed(RECORDS[:5])
    partition.annotated = 7
    assert read_progress(partition.read_from, partition.metadata) == Progress(done=partition.done, annotated=7)
    assert read_progress(None, "") == Progress(done=-1)
    assert read_progress(5, "") == Progress(done=-1)  # committed by another tool: nothing before it is known to be told
    assert read_progress(5, '{"done":4}') == Progress(done=4, annotated=0)  # of a version before annotations
    with pytest.raises(IntegrityError):
        read_progress(5, "someone else's")


def test_what_another_detect_has_told_of_acks_is_never_told_again() -> None:
    """Its successor may not have heard yet all that it has; the last commit at the end looks for none."""
    partition = WindowsPartition(0, [], 0, -1, SETTINGS, annotated=9)
    for heard_to in (4, Outgoing().heard_to):
        partition.annotated_up_to(heard_to)
        assert partition.annotated == 9
    partition.annotated_up_to(12)
    assert partition.annotated == 12


def test_lanes_of_one_partition_do_not_touch_each_other() -> None:
    other = Driver(lane=structs.replace(LANE, hook_name="other"))
    other.feed(requests(np.random.default_rng(5), 40))
    mixed = [
        r for pair in zip(window_records(STORY.windows[:5]), window_records(other.windows), strict=True) for r in pair
    ]
    partition, _ = replayed(consumed(mixed))
    assert {s.seen for s in partition.lanes.values()} == {40}
