"""An older baseline as a new version, with the projector it was made with."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from stream_interp.errors import IntegrityError
from stream_interp.records.control import make_control, read_baseline, read_projector
from stream_interp.records.promotion import promoted
from tests.topics.samples import BASELINE, PROJECTOR

NEW = BASELINE.manifest.version + 1_000


def test_projector_and_baseline_move_together_and_say_where_they_come_from():
    projector, baseline = promoted([PROJECTOR, BASELINE], BASELINE, NEW, "ada", "rollback to 1: bad day")
    header, arrays = read_baseline(baseline)
    was, arrays_were = read_baseline(BASELINE)
    assert header == structs.replace(was, version=NEW, projector_version=NEW, origin=was.version)
    assert all(np.array_equal(arrays[name], arrays_were[name], equal_nan=True) for name in arrays_were)
    shape, shape_arrays = read_projector(projector)
    assert shape == structs.replace(read_projector(PROJECTOR)[0], version=NEW)
    assert all(np.array_equal(shape_arrays[n], a) for n, a in read_projector(PROJECTOR)[1].items())
    for record in (projector, baseline):
        manifest = record.manifest
        assert (manifest.version, manifest.author, manifest.reason) == (NEW, "ada", "rollback to 1: bad day")
    assert [record.manifest.kind for record in (projector, baseline)] == ["projector", "baseline"]


def test_promoted_again_it_still_names_the_one_that_was_learnt():
    first = promoted([PROJECTOR, BASELINE], BASELINE, NEW, "ada", "r")
    again = promoted([PROJECTOR, BASELINE, *first], first[1], NEW + 1, "bo", "r")
    assert read_baseline(again[1])[0].origin == BASELINE.manifest.version
    assert read_baseline(again[1])[0].projector_version == NEW + 1


def test_without_its_projector_a_baseline_is_not_promoted():
    header, arrays = read_projector(PROJECTOR)
    other = make_control("projector", structs.replace(header, version=header.version + 7), arrays, "a", "r")
    with pytest.raises(IntegrityError, match=r"which is not on interp.control.*baseline build"):
        promoted([other, BASELINE], BASELINE, NEW, "ada", "r")
