"""The answer about a model, from what Redis holds. No server."""

from __future__ import annotations

import itertools
import subprocess
import sys

import msgspec
import pytest

from stream_interp.records.status import WORST_FIRST
from stream_interp.status.judge import ANSWERS_WORST_FIRST, Held, LaneEntry, judge, newest_revision, read_entry
from stream_interp.status.keys import lanes_key, status_key

NOW_MS = 1_800_000_000_000
STALE_AFTER_MS = 15_000


def entry(status, created_ms=0):
    return LaneEntry(lane=status.lane, created_ms=created_ms, seen_ms=status.as_of_ms)


def held(*statuses):
    return {s.lane.lane_id: Held(msgspec.json.encode(s), STALE_AFTER_MS) for s in statuses}


def test_keys_are_those_of_the_design():
    assert status_key("00ff") == "stream_interp:v1:status:00ff"
    assert lanes_key("default", "credit") == "stream_interp:v1:lanes:default/credit"


def test_unknown_ranks_beside_blind_and_above_drift():
    assert ANSWERS_WORST_FIRST == (
        "integrity_error", "blind", "unknown", "critical", "warning", "recovering", "learning", "ok",
    )  # fmt: skip


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(WORST_FIRST, 2)))
def test_the_worst_lane_wins_in_either_order(make_status, a, b):
    first, second = make_status(a, hook="h1"), make_status(b, hook="h2")
    for lanes in ([first, second], [second, first]):
        answer = judge([entry(s) for s in lanes], held(*lanes), NOW_MS)
        assert answer.state == a
        assert [lane.state for lane in answer.lanes] == [a, b]
        assert not answer.is_ok


def test_all_ok_is_ok_with_the_oldest_age(make_status):
    lanes = [make_status(hook="h1", as_of_ms=NOW_MS - 2000), make_status(hook="h2", as_of_ms=NOW_MS - 5000)]
    answer = judge([entry(s) for s in lanes], held(*lanes), NOW_MS)
    assert answer.is_ok
    assert answer.reason == ""
    assert answer.age_s == 5.0
    assert {lane.lane.hook_name: lane.age_s for lane in answer.lanes} == {"h1": 2.0, "h2": 5.0}


@pytest.mark.parametrize(("age_ms", "state"), [(0, "ok"), (15_000, "ok"), (15_001, "unknown"), (3_600_000, "unknown")])
def test_a_status_older_than_three_intervals_is_unknown(make_status, age_ms, state):
    status = make_status(as_of_ms=NOW_MS - age_ms)
    answer = judge([entry(status)], held(status), NOW_MS)
    assert answer.state == state
    assert answer.age_s == age_ms / 1000
    assert (answer.silent == [status.lane]) == (state == "unknown")


def test_a_writer_whose_clock_is_ahead_has_age_zero(make_status):
    status = make_status(as_of_ms=NOW_MS + 4000)
    assert judge([entry(status)], held(status), NOW_MS).age_s == 0.0


def test_one_silent_lane_makes_the_model_unknown_and_is_named(make_status):
    talking, silent = make_status(hook="h1"), make_status(hook="h2")
    answer = judge([entry(talking), entry(silent)], held(talking), NOW_MS)
    assert answer.state == "unknown"
    assert answer.silent == [silent.lane]
    assert "h2 is unknown" in answer.reason
    assert [lane.lane.hook_name for lane in answer.lanes] == ["h1"]


def test_a_critical_lane_beside_a_silent_one_stays_in_the_reason(make_status):
    drifted, silent = make_status("critical", hook="h1", reason="554 features"), make_status(hook="h2")
    answer = judge([entry(drifted), entry(silent)], held(drifted), NOW_MS)
    assert answer.state == "unknown"
    assert "h1 is critical: 554 features" in answer.reason


@pytest.mark.parametrize("json", [b"{}", b"not json", b"[" * 100_000, b'{"state": "splendid"}'])
def test_a_status_that_cannot_be_read_is_unknown(make_status, json):
    status = make_status()
    answer = judge([entry(status)], {status.lane.lane_id: Held(json, STALE_AFTER_MS)}, NOW_MS)
    assert answer.state == "unknown"
    assert answer.age_s is None
    assert "not a Status record" in answer.reason


def test_the_newest_revision_is_the_one_whose_first_lane_was_created_last(make_status):
    entries = [
        entry(make_status(revision="v1", hook="h1"), created_ms=10),
        entry(make_status(revision="v1", hook="added later"), created_ms=900),
        entry(make_status(revision="v2", hook="h1"), created_ms=500),
    ]
    for order in itertools.permutations(entries):
        assert newest_revision(order) == "v2"


def test_an_entry_of_another_version_is_ignored():
    assert read_entry(b'{"lane": 7}') is None
    assert read_entry(b"\xff") is None


def test_the_client_imports_neither_torch_nor_numpy_nor_kafka():
    code = "import sys, stream_interp.status.client; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not [name for name in ("'torch'", "'numpy'", "'confluent_kafka'", "'scipy'") if name in loaded]
