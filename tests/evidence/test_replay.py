"""A story replays to the same transitions, and shows the way of the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.evidence.make import replayed
from stream_interp.evidence.path import TOP_FEATURES, Point, incident_path
from stream_interp.evidence.replay import compare, require_equal
from stream_interp.evidence.story import Story
from stream_interp.records.envelope import header_map
from tests.evidence.stories import after_a_relearn, drifted, under_a_promoted_baseline

STORY = drifted()


@pytest.mark.parametrize("make", [drifted, under_a_promoted_baseline, after_a_relearn])
def test_a_story_replays_to_the_same_transitions(make: Callable[[], Story]) -> None:
    story = make()
    alerts, path = replayed(story)
    assert [a.event_id for a in alerts] == [a.event_id for a in story.alerts]
    assert alerts == list(story.alerts)  # not only the ids: every number in them
    assert "opened" in {a.transition for a in story.transitions}
    assert len(path) > 10


def test_the_marker_lies_between_checkpoint_and_incident() -> None:
    for make in (under_a_promoted_baseline, after_a_relearn):
        story = make()
        kinds = [header_map(record.headers)["ce_type"] for record in story.records]
        assert kinds.count("interp.marker.v1") == 1
        assert kinds.index("interp.marker.v1") > 0
        assert story.transitions[0].position.offset > story.records[kinds.index("interp.marker.v1")].offset


def test_without_the_baseline_that_a_marker_names_the_replay_differs() -> None:
    story = replace(under_a_promoted_baseline(), controls=())
    with pytest.raises(IntegrityError, match="differs"):
        require_equal(story.alerts, replayed(story)[0])


def test_what_differs_is_named() -> None:
    alerts = list(STORY.alerts)
    assert len(alerts) >= 2
    assert compare(alerts, alerts) == []
    louder = [structs.replace(alerts[0], severity="info"), *alerts[1:]]
    assert [d.replayed for d in compare(alerts, louder)] == [louder[0]]
    assert compare(alerts, alerts[:-1])[0].replayed is None
    assert compare(alerts[:-1], alerts)[0].recorded is None
    other = structs.replace(alerts[-1], event_id="0" * 32)
    with pytest.raises(IntegrityError, match="0000"):
        require_equal(alerts, [*alerts[:-1], other])
    labelled = [structs.replace(a, note="a label or a note is no decision") for a in alerts]
    assert compare(alerts, labelled) == []
    after_alarm = structs.replace(alerts[0], event_id="job", transition="updated", after_alarm=True)
    assert compare([alerts[0], after_alarm, *alerts[1:]], alerts) == []


def test_a_window_that_is_left_out_is_noticed() -> None:
    opened = STORY.transitions[0].position.offset
    story = replace(STORY, records=tuple(r for r in STORY.records if r.offset != opened))
    with pytest.raises(IntegrityError, match="differs"):
        require_equal(story.alerts, replayed(story)[0])


def crossed(point: Point) -> list[str]:
    thresholds = {name: -math.inf if e is None else e for name, e in point.log_e.items()}
    return [name for name, a in point.log_threshold.items() if a is not None and thresholds[name] >= a]


def test_the_path_crosses_its_threshold_where_the_incident_opens() -> None:
    path, opened = incident_path(STORY), STORY.transitions[0]
    assert len(path) == len(STORY.records) - 4  # windows that only fed the baseline
    at = next(i for i, point in enumerate(path) if point.offset == opened.position.offset)
    assert path[at].open
    assert not any(point.open for point in path[:at])
    named = {f"{s.score} {s.direction}" for s in opened.scores}
    assert named
    assert named <= path[at].log_e.keys()
    assert crossed(path[at])
    assert not any(crossed(point) for point in path[:at])
    assert sum(name.startswith("feature ") for name in path[at].log_e) <= TOP_FEATURES
    assert [p.request for p in path] == sorted(p.request for p in path)
    assert path[at].request == opened.request
    later = path[1:]  # nothing is measured yet where the baseline is frozen
    assert all(p.health.explained_variance is not None and p.health.l0_baseline is not None for p in later)
