"""When an incident opens, the checkpoint to replay it from is copied to where later checkpoints do not reach it."""

from __future__ import annotations

import itertools

import pytest

from stream_interp.detect.checkpoint import Checkpoints, Saved, read_saved
from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.state_codec import load_state
from stream_interp.records import checkpoint as records_checkpoint
from stream_interp.records.alert import Alert
from stream_interp.records.checkpoint import Checkpoint, incident_checkpoint, is_part_of_copy
from stream_interp.records.envelope import Envelope
from tests.detect.log import LANE, consumed, ids, replayed, story, window_records

STORY = story(shift=0.5)  # its incident opens some windows after the change
RECORDS = consumed(window_records(STORY.windows))
ALERTS = replayed(RECORDS)[1].alerts
OPENED = next(alert for alert in ALERTS if alert.transition == "opened")
CHANGE = 600 // 8 + 10  # the first drifted window: 600 requests to learn, 80 calm ones, 8 a window


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_checkpoint, "PART_BYTES", 5_000)


class Topic:
    """`interp.state`, compacted, as DETECT writes it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def take(self, records: list[Envelope]) -> None:
        for record in records:
            self.values.pop(record.key.decode(), None)
            if record.value is not None:
                self.values[record.key.decode()] = record.value

    @property
    def without_copies(self) -> dict[str, bytes]:
        return {key: value for key, value in self.values.items() if not is_part_of_copy(key)}

    def copy(self, number: int = 1) -> Checkpoint | None:
        return incident_checkpoint(LANE.lane_id, number, self.values)


def detect(topic: Topic, stops: list[int], begin: int = 0, saved: Saved | None = None, low: int = 0) -> list[Alert]:
    """Polls that end at `stops`, a checkpoint after each; what was told."""
    saved, alerts = saved or Saved(), []
    partition = WindowsPartition(0, saved.states, begin, saved.covered, STORY.state.settings)
    checkpoints = Checkpoints(saved, begin, low)
    for start, stop in itertools.pairwise([begin, *stops]):
        _, told = replayed(RECORDS[start:stop], partition)
        copies = checkpoints.of_incidents(partition, told.alerts)
        topic.take([*copies, *checkpoints.of_all(partition)])
        alerts += told.alerts
    return alerts


def events_from(copy: Checkpoint) -> list[str]:
    """What a replay from the copy tells."""
    m, told = copy.manifest, Told()
    state = load_state(copy.body)
    partition = WindowsPartition(0, [state], m.read_from, m.covered.offset, state.settings)
    for record in RECORDS[m.read_from :]:
        partition.take(record, lambda _: None, told)
    return ids(told.alerts)


def test_the_change_is_where_the_tests_say() -> None:
    assert OPENED.position.offset >= CHANGE
    assert OPENED.change_estimate_request <= 88  # requests since it was armed: 80 calm ones, and half a window


def test_the_newest_before_the_change_is_copied_and_survives_a_hundred_later_ones() -> None:
    topic = Topic()
    detect(topic, [40, 80, CHANGE, *range(OPENED.position.offset + 1, len(RECORDS))])
    copy = topic.copy()
    assert copy is not None
    assert copy.manifest.before_change
    assert copy.manifest.covered.offset <= CHANGE
    assert load_state(copy.body).requests <= OPENED.change_estimate_request
    assert events_from(copy) == ids(ALERTS)


def test_where_the_newest_is_too_late_the_one_before_it_is_taken() -> None:
    topic = Topic()
    detect(topic, [80, OPENED.position.offset, len(RECORDS)])
    copy = topic.copy()
    assert copy is not None
    assert (copy.manifest.before_change, copy.manifest.covered.offset) == (True, 79)
    assert events_from(copy) == ids(ALERTS)


def test_where_none_is_left_from_before_the_oldest_is_taken_and_says_so() -> None:
    late, topic = OPENED.position.offset, Topic()
    assert replayed(RECORDS[: late - 1])[0].lanes[LANE.lane_id].requests > OPENED.change_estimate_request
    detect(topic, [80, late - 1, late, len(RECORDS)])
    copy = topic.copy()
    assert copy is not None
    assert (copy.manifest.before_change, copy.manifest.covered.offset) == (False, late - 2)
    assert events_from(copy) == ids(ALERTS)


def test_a_lane_that_learns_and_drifts_within_one_poll_is_replayed_from_its_birth() -> None:
    topic = Topic()
    detect(topic, [len(RECORDS)])
    copy = topic.copy()
    assert copy is not None
    assert (copy.manifest.covered.offset, copy.manifest.read_from) == (-1, 0)
    assert events_from(copy) == ids(ALERTS)


@pytest.mark.parametrize("killed_at", [80, OPENED.position.offset, OPENED.position.offset + 1])
def test_after_a_kill_both_slots_are_candidates(killed_at: int) -> None:
    topic = Topic()
    told = detect(topic, [60, killed_at])
    saved = read_saved(topic.without_copies)
    assert [k.manifest.generation for k in saved.older.values()] == [0]
    told += detect(topic, [len(RECORDS)], killed_at, saved)
    copy = topic.copy()
    assert copy is not None
    assert copy.manifest.before_change
    assert copy.manifest.covered.offset <= CHANGE
    assert events_from(copy) == ids(told) == ids(ALERTS)


def test_a_restart_is_not_misled_by_copies() -> None:
    topic = Topic()
    detect(topic, [80, len(RECORDS)])
    alone = {key: value for key, value in topic.values.items() if "incident-" not in key}
    for values in (topic.values, topic.without_copies):
        saved, expected = read_saved(values), read_saved(alone)
        assert saved.manifests == expected.manifests
        assert saved.broken == []
        assert [m.incident for m in saved.copies] == [1]
    only_copies = {key: value for key, value in topic.values.items() if "incident-" in key}
    assert read_saved(only_copies).states == []
    assert read_saved(only_copies).broken == []


def test_a_copy_goes_once_its_windows_have_expired() -> None:
    topic = Topic()
    detect(topic, [80, len(RECORDS) - 1])
    kept, gone = Topic(), Topic()
    for after, low in ((kept, 80), (gone, 81)):
        after.values = dict(topic.values)
        saved = read_saved(after.without_copies)
        detect(after, [len(RECORDS)], len(RECORDS) - 1, saved, low)
    assert kept.copy() is not None
    assert gone.copy() is None
    assert not any("incident-" in key for key in gone.values)
    assert len(read_saved(gone.values).states) == 1


def test_no_incident_no_copy() -> None:
    topic = Topic()
    detect(topic, [40, 80])
    assert not any("incident-" in key for key in topic.values)
