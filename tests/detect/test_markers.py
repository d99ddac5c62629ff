"""When a marker is due: once for a baseline, once for a silence."""

from __future__ import annotations

import pytest
from msgspec import structs

from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.operators import Operators
from stream_interp.errors import IntegrityError
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Marker, Versioned, encode_control, make_control
from stream_interp.settings import DriftSettings, Settings, SiteSettings, StatusSettings
from tests.detect.log import LANE, consumed, marker_record, replayed, story, window_records

STORY = story()
SETTINGS = Settings(status=StatusSettings(blind_after_s=10))


def baseline(version: int, author: str = "ann") -> Versioned:
    held = STORY.state.baseline
    assert held is not None
    return make_control("baseline", structs.replace(held.header, version=version), held.arrays, author, "")


def known(*records: Versioned) -> Operators:
    baselines = Operators()
    for record in records:
        for k, e in enumerate(encode_control(record)):
            baselines.add(Consumed("interp.control", 0, k, 0, e.key, list(e.headers), e.value))
    return baselines


def test_the_newest_baseline_of_an_operator_is_marked_once() -> None:
    baselines, watch = known(baseline(5), baseline(7), baseline(6), baseline(9, author="detect")), LaneWatch(0)
    (newest,) = baselines.newest_baselines()
    assert newest.manifest.version == 7
    marker = watch.baseline_marker(None, newest, DriftSettings())
    assert marker is not None
    assert baselines.find(marker) == newest
    assert watch.baseline_marker(None, newest, DriftSettings()) is None


def test_a_baseline_in_effect_needs_no_marker() -> None:
    assert STORY.state.baseline is not None
    version = STORY.state.baseline.header.version
    assert LaneWatch(0).baseline_marker(STORY.state, baseline(version), DriftSettings()) is None
    assert LaneWatch(0).baseline_marker(STORY.state, baseline(version + 1), DriftSettings()) is not None


def test_another_hash_is_not_the_baseline_that_a_marker_names() -> None:
    marker = Marker(kind="baseline", lane=LANE, version=5, sha256="0" * 64)
    assert known(baseline(5)).find(marker) is None


def test_a_key_that_is_no_text_is_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="not UTF-8"):
        Operators().add(Consumed("interp.control", 0, 0, 0, b"\xff", [], b""))


def test_blind_is_marked_once_a_silence() -> None:
    windows = window_records(STORY.windows[:3])
    partition, _ = replayed(consumed(windows[:2]))
    watch = LaneWatch(since_s=100)

    def due(now_s: float) -> list[Marker]:
        return list(watch.blind_markers(partition, SETTINGS, now_s, 1))

    assert due(109) == []  # silence before the assignment is not ours to judge
    watch.saw_window(LANE.lane_id, 105)
    assert due(114) == []
    (marker,) = due(115)
    assert (marker.after_position, marker.lane) == (1, LANE)
    assert due(116) == []
    replayed(consumed([marker_record(marker)], start=2), partition)
    assert due(117) == []  # it is blind
    replayed(consumed(windows[2:], start=3), partition)
    watch.saw_window(LANE.lane_id, 200)
    assert due(209) == []
    assert len(due(210)) == 1


def test_an_idle_site_is_never_called_blind() -> None:
    partition, _ = replayed(consumed(window_records(STORY.windows[:1])))
    settings = structs.replace(SETTINGS, sites=[SiteSettings(model_id="m*", idle_ok=True)])
    assert list(LaneWatch(0).blind_markers(partition, settings, 1_000, 1)) == []
