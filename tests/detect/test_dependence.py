"""Requests that hang together: the baseline says so, in its intervals too."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect import armed, learning
from stream_interp.detect.armed.features import KINDS
from stream_interp.records.control import ProjectorHeader, read_baseline
from stream_interp.records.group_keys import BUCKETS
from stream_interp.records.lengths import BINS
from stream_interp.records.window import Window
from tests.detect.lanes import LANE
from tests.detect.test_families import DRIFT, RATE, STRENGTH, window

PROJECTOR = ProjectorHeader(
    lane=LANE, version=1, unit_tokens=1, d_in=1, d_sae=len(RATE), fit_requests=1, fit_tokens=1, shrinkage=0.0,
    kept_directions=0,
)  # fmt: skip


def complete(made: Window) -> None:
    """With the arrays that only learning reads."""
    made.arrays["tokens_fired"] = made.arrays["requests_fired"].astype(np.int64)
    made.arrays["request_max"] = np.ones(len(made.arrays["feature_ids"]), np.float32)
    made.arrays["length_histogram"] = np.zeros(BINS, np.int64)
    made.arrays["x_sum"] = np.zeros(1)


def calibrated(rng: np.random.Generator, busy: float, sojourn: int, windows: int = 150) -> learning.Learned:
    """Windows of 32 requests; features fire `busy` times as often, and as much less, in turns of so many windows."""
    learned = None
    for k in range(windows):
        factor = busy if (k // sojourn) % 2 else 2 - busy
        made = window(rng, np.minimum(RATE * factor, 1), STRENGTH)
        complete(made)
        learned = learning.absorb(learned, made, at_ms=1, offset=1)
    assert learned is not None
    return learned


@pytest.mark.parametrize("seed", range(3))
def test_independent_requests_have_a_design_effect_of_about_1(seed: int) -> None:
    learned = calibrated(np.random.default_rng(seed), busy=1.0, sojourn=1)
    header, _ = read_baseline(learning.make_baseline(learned, LANE, 2, PROJECTOR, DRIFT, 1.0))
    assert header.design_effect == pytest.approx(1.0, abs=0.2)
    assert not header.dependent
    assert header.design_effect_of_tokens is not None


def test_requests_that_come_in_phases_are_marked_and_their_intervals_are_wider() -> None:
    learned = calibrated(np.random.default_rng(5), busy=1.6, sojourn=4)
    header, arrays = read_baseline(learning.make_baseline(learned, LANE, 2, PROJECTOR, DRIFT, 1.0))
    assert header.dependent
    assert header.design_effect is not None
    assert header.design_effect > 2
    known = armed.build(header, arrays, DRIFT)
    naive = armed.build(structs.replace(header, dependent=False), arrays, DRIFT)
    for kind in KINDS:
        wide, narrow = (of.unit.features[str(kind)] for of in (known, naive))
        both = wide.armed & narrow.armed
        outwards = wide.p[both] > narrow.p[both] if kind.direction == "up" else wide.p[both] < narrow.p[both]
        assert both.any()
        assert outwards.all()
    wide_scores, narrow_scores = (of.unit.scores for of in (known, naive))
    usable = wide_scores.usable
    assert usable.any()
    assert (wide_scores.null_rates[usable] > narrow_scores.null_rates[usable]).all()
    np.testing.assert_array_equal(wide_scores.thresholds[usable], narrow_scores.thresholds[usable])


@pytest.mark.parametrize("alike", [False, True])
def test_sessions_far_apart_in_the_log_are_seen_by_their_key(alike: bool) -> None:
    """Each has 8 requests, all alike or independent, but no window holds two of them."""
    rng, sessions, d_sae, learned = np.random.default_rng(9), 32, len(RATE), None
    for _ in range(6):
        fires = rng.random((sessions, d_sae)) < RATE
        bucket = rng.integers(0, BUCKETS, sessions)
        for _ in range(8):
            fires = fires if alike else rng.random((sessions, d_sae)) < RATE
            made = window(rng, RATE, STRENGTH)
            cells = np.zeros((BUCKETS, d_sae), np.int64)
            np.add.at(cells, bucket, fires)
            made.arrays["group_requests"] = np.bincount(bucket, minlength=BUCKETS)
            made.arrays["group_cells"] = np.flatnonzero(cells).astype(np.int32)
            made.arrays["group_fired"] = cells[cells > 0].astype(np.int32)
            complete(made)
            learned = learning.absorb(learned, made, at_ms=1, offset=1)
    assert learned is not None
    header, _ = read_baseline(learning.make_baseline(learned, LANE, 2, PROJECTOR, DRIFT, 1.0))
    assert header.design_effect == pytest.approx(1.0, abs=0.4)
    assert header.design_effect_of_groups == pytest.approx(8 if alike else 1, rel=0.35)
    assert header.dependent == header.dependent_groups == alike
    assert header.widened_by == (header.design_effect_of_groups if alike else 1.0)


def test_requests_without_a_group_key_say_nothing_of_groups() -> None:
    learned = calibrated(np.random.default_rng(0), busy=1.0, sojourn=1, windows=20)
    header, _ = read_baseline(learning.make_baseline(learned, LANE, 2, PROJECTOR, DRIFT, 1.0))
    assert learned.of_groups is None
    assert header.design_effect_of_groups is None
    assert header.largest_design_effect == header.design_effect


def test_a_lane_without_an_sae_knows_no_design_effect() -> None:
    assert learning._known(learning._estimated(None).deff) is None
