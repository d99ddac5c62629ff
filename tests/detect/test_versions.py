"""ENCODE and DETECT end with the same projector, in whatever order each hears of what operators want."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.detect.world import EVERYTHING, World

HOUR_MS = 3_600_000
SKEWS = st.sampled_from([0, 0, 200, -200, HOUR_MS, -HOUR_MS])
ACTS = st.one_of(
    st.tuples(st.just("window"), st.integers(0, 1)),
    st.tuples(st.just("window"), st.integers(0, 1)),
    st.tuples(st.just("follow"), st.integers(0, 1)),
    st.tuples(st.just("detect"), st.integers(1, 4)),
    st.tuples(st.just("detect"), st.just(EVERYTHING)),
    st.tuples(st.just("relearn"), SKEWS),
    st.tuples(st.just("relearn_unseen"), SKEWS),
    st.tuples(st.just("promote"), SKEWS, st.integers(0, 3)),
    st.tuples(st.just("crash")),
)


def begun(windows: int, skews_ms: tuple[int, int] = (0, 0)) -> World:
    """A lane that has seen so many windows: the first is *fit*, four are *calibrate*."""
    world = World(skews_ms)
    for _ in range(windows):
        world.window(0)
        world.follow(0)
        world.detect(EVERYTHING)
    return world


def assert_heard(world: World) -> None:
    world.settle()
    state = world.lane
    assert state.phase == "armed"
    assert state.projector is not None
    assert [e.version(world.first) for e in world.encoders] == [state.projector.version] * 2
    counted = state.counted
    world.settle()
    assert world.lane.counted > counted


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(SKEWS, SKEWS), st.integers(0, 7), st.lists(ACTS, max_size=25))
def test_whatever_happens_the_lane_ends_judged_by_windows_that_encode_makes(skews, windows, acts) -> None:
    world = begun(windows, skews)
    for name, *args in acts:
        getattr(world, name)(*args)
    assert_heard(world)


@pytest.mark.parametrize("windows", range(1, 8))
def test_an_order_to_learn_again_while_learning_ends(windows: int) -> None:
    """ENCODE lets go of the projector, whatever the baseline is called that DETECT has just learnt with it."""
    world = begun(windows)
    world.relearn(0)
    world.window(0)
    world.detect(EVERYTHING)
    assert_heard(world)
    assert world.lane.relearned


def test_two_orders_to_learn_again_of_clocks_that_are_ahead() -> None:
    """DETECT's projector gets the version after the first order's: the one that the second has already."""
    world = begun(1)
    world.relearn(200)
    world.detect(1)
    world.relearn(0)
    assert_heard(world)


def test_two_who_order_at_once_and_only_one_has_a_clock_that_is_right() -> None:
    world = begun(6)
    world.relearn(HOUR_MS)
    world.relearn_unseen(0)
    assert_heard(world)


def test_a_baseline_promoted_while_learning_ends() -> None:
    world = begun(5)
    world.relearn(0)
    world.settle()
    world.relearn(0)
    for _ in range(4):
        world.follow(0)
        world.window(0)
        world.detect(EVERYTHING)
    world.promote(0, 0)
    world.window(0)
    world.detect(EVERYTHING)
    assert_heard(world)


def test_a_lane_whose_state_is_lost_learns_again_when_it_is_asked_to() -> None:
    """Its windows are of a projector that DETECT has forgotten: they count for nothing, and coverage says so."""
    world = begun(8)
    world.log, world.state_topic, world.done = [], {}, -1
    world.crash()
    world.settle()
    lost = world.lane
    assert (lost.phase, lost.counted) == ("fit", 0)
    assert lost.reasons["projector_travelling"] == lost.seen
    world.relearn(0)
    assert_heard(world)
