"""Counts by group that lie are refused before they are added: what is added once stays for the whole calibration."""

from __future__ import annotations

import numpy as np
import pytest

from stream_interp.detect.group_keys import ByBucket, groups_after
from stream_interp.detect.partition import UNUSABLE
from stream_interp.records.group_keys import BUCKETS
from stream_interp.records.window import Window
from tests.detect.test_families import RATE, STRENGTH, window


def with_groups(**other: np.ndarray) -> Window:
    """Two requests of bucket 3, of which one fired in feature 0 and both in feature 2."""
    made = window(np.random.default_rng(0), RATE, STRENGTH)
    cells = np.array([3 * len(RATE), 3 * len(RATE) + 2], np.int32)
    made.arrays["group_requests"] = np.bincount([3, 3], minlength=BUCKETS)
    made.arrays.update({"group_cells": cells, "group_fired": np.array([1, 2], np.int32)} | other)
    return made


def test_counts_add_up() -> None:
    found = groups_after(groups_after(None, with_groups()), with_groups())
    assert isinstance(found, ByBucket)
    assert found.requests[3] == found.requests.sum() == 4
    assert found.fired[3, :3].tolist() == [2, 0, 4]


LIES = {
    "other buckets": {"group_requests": np.ones(2, np.int64)},
    "a square": {"group_requests": np.ones((BUCKETS, BUCKETS), np.int64)},
    "not integers": {"group_requests": np.full(BUCKETS, np.inf)},
    "more than all": {"group_requests": np.full(BUCKETS, 10**6)},
    "more than int64 adds up": {"group_requests": np.full(BUCKETS, 2**56)},
    "below 0": {"group_requests": np.full(BUCKETS, -5)},
    "a cell beyond": {"group_cells": np.array([0, BUCKETS * len(RATE)], np.int32)},
    "a cell below": {"group_cells": np.array([-1, 3 * len(RATE)], np.int32)},
    "one for all cells": {"group_fired": np.array([1], np.int32)},
    "fired more than came": {"group_fired": np.array([1, 3], np.int32)},
    "fired below 0": {"group_fired": np.array([1, -2], np.int32)},
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(lie: str) -> None:
    with pytest.raises(UNUSABLE):
        groups_after(None, with_groups(**LIES[lie]))


def test_a_window_without_its_cells_is_refused() -> None:
    made = with_groups()
    del made.arrays["group_cells"]
    with pytest.raises(UNUSABLE):
        groups_after(None, made)
