"""What DETECT told, over crashes, markers and chunks in any order, is what a replay of the log tells: all of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.state_codec import dump_state
from stream_interp.evidence.replay import replay
from stream_interp.evidence.story import Story
from stream_interp.records.alert import ENDS, Alert
from stream_interp.records.checkpoint import copy_manifests, incident_checkpoint
from tests.detect.log import LANE, ids
from tests.detect.world import EVERYTHING, World

ACTS = [
    *[("window", 0), ("window", 1), ("interleaved",)] * 4,
    *[("follow", 0), ("follow", 1)] * 3,
    *[("detect", EVERYTHING), ("detect", EVERYTHING, True), ("detect", 3), ("detect", 7, True)] * 3,
    *[("crash",), ("crash", 3), ("crash", EVERYTHING)],
    *[("drift", 0.0), ("drift", 3.0), ("drift", 3.0)],
    *[("resolve", 0), ("resolve", 5_000), ("relearn", 0), ("approve", 0), ("promote", 0, 1)],
    *[("blind", False), ("blind", True)],
]  # fmt: skip


def played(acts: list[tuple]) -> World:
    """A lane that has learnt, and whatever happens to it then."""
    world = World(size=32, chunk_bytes=4_000)
    for _ in range(8):
        world.window(0)
        for k in range(2):
            world.follow(k)
        world.detect(EVERYTHING)
    assert world.lane.phase == "armed"
    for name, *args in acts:
        getattr(world, name)(*args)
    world.settle()
    world.settle()
    return world


def pure_replay(world: World) -> tuple[WindowsPartition, list[Alert]]:
    """Of the log alone, with the baselines that lie on `interp.control`."""
    partition, told = WindowsPartition(0, [], 0, -1, world.fresh_settings), Told()
    for record in world.log:
        partition.take(record, world.operators.find, told)
    return partition, told.alerts


def stories(world: World) -> list[Story]:
    """Of every incident, as the evidence command collects them, to the log's end."""
    found = []
    for manifest in copy_manifests(world.state_topic):
        checkpoint = incident_checkpoint(LANE.lane_id, manifest.incident, world.state_topic)
        assert checkpoint is not None
        end, covered = world.partition.done, manifest.covered.offset
        found.append(
            Story(
                incident_id="", checkpoint=checkpoint, annotations=(), orders=(), cuts=(), end=end, complete=True,
                records=tuple(r for r in world.log if manifest.read_from <= r.offset <= end),
                alerts=tuple(a for a in world.alerts if covered < a.position.offset <= end),
                controls=tuple(r for r in world.records if r.manifest.kind == "baseline"),
            )
        )  # fmt: skip
    return found


def assert_replayable(world: World) -> None:
    found = ids(world.alerts)
    assert len(found) == len(set(found))
    partition, alerts = pure_replay(world)
    assert alerts == world.alerts
    assert dump_state(partition.lanes[LANE.lane_id]) == dump_state(world.lane)
    opened = [a.incident_id for a in world.alerts if a.transition == "opened"]
    assert len(opened) == len(set(opened)) == world.lane.incidents
    last = {a.incident_id: a for a in world.alerts}
    assert world.lane.stories == {i: a for i, a in last.items() if a.transition not in ENDS}
    assert len(stories(world)) == len(opened)
    for story in stories(world):
        assert [a for step in replay(story) for a in step.told.alerts] == list(story.alerts)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(ACTS), max_size=40))
def test_a_replay_tells_the_same(acts: list[tuple]) -> None:
    assert_replayable(played(acts))


@pytest.mark.parametrize("seed", range(6))
def test_a_long_story_tells_the_same(seed: int) -> None:
    rng = random.Random(seed)
    world = played([rng.choice(ACTS) for _ in range(200)])
    assert_replayable(world)
    assert {"opened", "resolved", "blind", "seeing"} <= {a.transition for a in world.alerts}
