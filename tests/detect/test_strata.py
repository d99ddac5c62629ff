"""What a lane learns beside its unit: strata, magnitudes, lengths, positions, hours; against sums over its windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from stream_interp import offline
from stream_interp.detect.hours import HOURS, Hours, hour_of_week
from stream_interp.detect.learning import absorb, make_baseline, make_projector
from stream_interp.detect.orders import apply_baseline, relearn
from stream_interp.detect.state import Baseline, LaneState, armed_bytes, learning_bytes
from stream_interp.detect.state_codec import StateHeader, dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.strata import STRATUM_REQUESTS, strata_after
from stream_interp.encode.requests import Request
from stream_interp.records.alert import Position
from stream_interp.records.arrays import pack, unpack
from stream_interp.records.control import Marker, make_control, read_baseline, read_projector
from stream_interp.records.lengths import BINS, length_bins
from stream_interp.records.window import Window, stratum_of
from stream_interp.settings import DriftSettings, UnitSettings
from tests.detect.lanes import D_IN, D_SAE, LANE, SETTINGS, Driver
from tests.detect.test_bounds import held_bytes
from tests.detect.test_offline import write

UNIT = UnitSettings(tokens=6, blocks=3)
NEW_ARRAYS = {"mag_sum", "length_histogram", "start_histogram"}
STRATUM_ARRAYS = {"requests_fired", "mag_sum", "calibration_scores"}


def mixed(rng: np.random.Generator, lengths: Iterable[int]) -> list[Request]:
    """Requests of so many standard normal tokens, that begin anywhere."""
    return [
        Request(request_id=str(i), acts=rng.standard_normal((n, D_IN)).astype(np.float32),
                positions=np.arange(n, dtype=np.int32) + i % 50)
        for i, n in enumerate(lengths)
    ]  # fmt: skip


def learnt(of: Iterable[int], unit: UnitSettings = UNIT, n: int = 1_500) -> Driver:
    """A lane armed by requests of these lengths in turn."""
    driver = Driver(settings=structs.replace(SETTINGS, baseline_requests=n, unit=unit))
    rng, lengths = np.random.default_rng(1), cycle(of)
    while driver.state.phase in ("fit", "calibrate"):
        wanted = n // 5 if driver.state.phase == "fit" else n - n // 5
        driver.feed(mixed(rng, islice(lengths, wanted - driver.state.requests)))
    assert driver.state.phase == "armed"
    return driver


LENGTHS = [3, 7, 13, 20, 5, 6, 12, 25]  # a quarter short, five in eight have a second block, two a third
LANE_LEARNT = learnt(LENGTHS)


def calibrated(driver: Driver) -> list[Window]:
    return [w for w in driver.windows if w.header.projector_version and w.header.cut.b <= driver.offset]


def test_a_baseline_holds_the_sums_of_its_windows() -> None:
    baseline, windows = LANE_LEARNT.state.baseline, calibrated(LANE_LEARNT)
    assert baseline is not None
    arrays, header = baseline.arrays, baseline.header
    assert set(header.strata) == {"short", "block1", "block2"}
    assert header.requests == sum(w.header.requests for w in windows)
    assert set(arrays) == {
        "requests_fired", "calibration_scores", *NEW_ARRAYS,
        *(f"{s}.{name}" for s in header.strata for name in STRATUM_ARRAYS),
    }  # fmt: skip
    for name in ("unit", *header.strata):
        fired, mag, rows = [0] * D_SAE, [0.0] * D_SAE, []
        for window in windows:
            requests, own = stratum_of(window, name)
            rows += own["request_scores"].tolist()
            assert requests == len(own["request_scores"])
            for f, count, magnitude in zip(own["feature_ids"], own["requests_fired"], own["mag_sum"], strict=True):
                fired[f] += int(count)
                mag[f] += float(magnitude)
        prefix = "" if name == "unit" else f"{name}."
        assert header.strata.get(name, header.requests) == len(rows)
        assert arrays[f"{prefix}requests_fired"].tolist() == fired
        assert arrays[f"{prefix}mag_sum"].tolist() == mag
        np.testing.assert_array_equal(arrays[f"{prefix}calibration_scores"], np.array(rows, np.float32))
        assert 0 < sum(mag) < sum(fired)


def test_lengths_and_starts_are_of_all_requests_that_passed() -> None:
    baseline = LANE_LEARNT.state.baseline
    assert baseline is not None
    passed = baseline.header.requests + baseline.header.too_short
    for name in ("length_histogram", "start_histogram"):
        expected = sum(w.arrays[name] for w in calibrated(LANE_LEARNT))
        np.testing.assert_array_equal(baseline.arrays[name], expected)
        assert baseline.arrays[name].sum() == passed > baseline.header.requests
    of = np.flatnonzero(baseline.arrays["length_histogram"])
    assert of.tolist() == sorted(length_bins(np.array(LENGTHS)).tolist())


def test_unit_and_blocks_are_fixed_by_the_projector() -> None:
    (projector,) = [c for r in LANE_LEARNT.results for c in r.controls if c.manifest.kind == "projector"]
    header, _ = read_projector(projector)
    assert (header.unit_tokens, header.blocks) == (6, 3)
    assert (LANE_LEARNT.shape.unit_tokens, LANE_LEARNT.shape.blocks) == (6, 3)  # what ENCODE goes by
    fit = next(r.state.learned for r in LANE_LEARNT.results if r.state.learned is not None)
    by_percentile, _ = read_projector(make_projector(fit, LANE, 1, UnitSettings()))
    assert (by_percentile.unit_tokens, by_percentile.blocks) == (3, 1)


def test_a_stratum_with_few_requests_has_no_baseline() -> None:
    lengths = [12] * 9 + [5]  # beside 1,200 requests that count 133 short ones pass; each of the others has two blocks
    baseline = learnt(lengths, UnitSettings(tokens=6, blocks=2)).state.baseline
    assert baseline is not None
    assert 0 < baseline.header.too_short < STRATUM_REQUESTS
    assert set(baseline.header.strata) == {"block1"}
    assert not any(name.startswith("short.") for name in baseline.arrays)


def test_short_requests_never_outnumber_those_of_the_unit() -> None:
    """Or a lane of short requests alone would grow for ever."""
    driver = learnt([3] * 9 + [6], UnitSettings(tokens=6), n=500)
    baseline = driver.state.baseline
    assert baseline is not None
    assert baseline.header.too_short > 8 * baseline.header.requests
    assert STRATUM_REQUESTS <= baseline.header.strata["short"] <= baseline.header.requests
    windows = [w for w in calibrated(driver) if w.header.strata.get("short")]
    assert strata_after({}, windows[0], 0) == {}


def as_written_before(state: LaneState) -> LaneState:
    """Through a checkpoint of a version that kept nothing of this."""
    header, arrays = unpack(dump_state(state), StateHeader)
    new = ("mag", "starts", "strata", "hours")
    tree = {**header.state, "settings": {k: v for k, v in header.state["settings"].items() if k != "unit"}}
    tree["learned"] = {k: v for k, v in tree["learned"].items() if k not in new}
    old = {k: v for k, v in arrays.items() if not k.startswith(tuple(f"state.learned.{name}" for name in new))}
    assert len(old) < len(arrays)
    return load_state(pack(StateHeader(state=tree), old))


def without_strata(window: Window) -> Window:
    """As an ENCODE of before writes it."""
    arrays = {k: v for k, v in window.arrays.items() if "." not in k and k != "start_histogram"}
    return Window(structs.replace(window.header, strata={}), arrays)


def resumed(state: LaneState, windows: Iterable[Window]) -> Baseline:
    for window in windows:
        position = Position(partition=0, offset=window.header.cut.b - 1)
        state = step(state, window, position, window.header.closed_at_ms).state
        if state.baseline is not None:
            return state.baseline
    raise AssertionError("it never learnt")


MIDDLE = next(k for k, r in enumerate(LANE_LEARNT.results) if r.state.phase == "calibrate" and r.state.requests > 300)


def test_a_checkpoint_within_calibrate_goes_on_to_the_same_baseline() -> None:
    state, rest = LANE_LEARNT.results[MIDDLE].state, LANE_LEARNT.windows[MIDDLE + 1 :]
    held = LANE_LEARNT.state.baseline
    found = resumed(load_state(dump_state(state)), rest)
    assert held is not None
    assert found.header == held.header
    assert found.arrays.keys() == held.arrays.keys()
    for name, array in held.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def test_a_checkpoint_of_before_goes_on_and_says_only_what_it_knows() -> None:
    """Σ mag_sum of some of the requests would read as a small magnitude; all else has an n of its own."""
    state, rest = as_written_before(LANE_LEARNT.results[MIDDLE].state), LANE_LEARNT.windows[MIDDLE + 1 :]
    assert state.settings.unit == UnitSettings()
    found, held = resumed(state, rest), LANE_LEARNT.state.baseline
    assert held is not None
    assert "mag_sum" not in found.arrays
    assert found.arrays["start_histogram"].sum() < found.arrays["length_histogram"].sum()
    assert found.header.strata["block1"] < held.header.strata["block1"]
    assert len(found.arrays["block1.calibration_scores"]) == found.header.strata["block1"]
    np.testing.assert_array_equal(found.arrays["requests_fired"], held.arrays["requests_fired"])


def test_windows_of_before_give_what_they_have() -> None:
    at = next(k for k, r in enumerate(LANE_LEARNT.results) if r.state.phase == "calibrate")
    state = LANE_LEARNT.results[at].state
    found, held = resumed(state, map(without_strata, LANE_LEARNT.windows[at + 1 :])), LANE_LEARNT.state.baseline
    assert held is not None
    assert found.header.strata == {}
    assert found.arrays["start_histogram"].tolist() == [0] * BINS
    for name in ("requests_fired", "mag_sum", "length_histogram", "calibration_scores"):
        np.testing.assert_array_equal(found.arrays[name], held.arrays[name], err_msg=name)


def test_a_baseline_of_before_reads_and_arms() -> None:
    held = LANE_LEARNT.state.baseline
    assert held is not None
    arrays = {name: held.arrays[name] for name in ("requests_fired", "calibration_scores")}
    header = structs.replace(held.header, version=held.header.version + 1, strata={})
    state = LANE_LEARNT.state
    result = apply_baseline(state, make_control("baseline", header, arrays, "ann", ""), DriftSettings(), state.position)
    assert result.state.baseline is not None
    assert result.state.baseline.header.version == header.version
    assert result.state.settings.unit == UNIT  # another budget is no reason to forget it


@pytest.mark.parametrize("unit", [None, UnitSettings(tokens=9, blocks=2)])
def test_relearn_takes_the_unit_of_its_marker(unit: UnitSettings | None) -> None:
    state = LANE_LEARNT.state
    marker = Marker(kind="relearn", lane=LANE, version=state.closed_at_ms + 1, unit=unit)
    assert relearn(state, marker, state.position).state.settings.unit == (unit or UNIT)


def test_a_file_gives_the_same_baseline_without_hours(tmp_path: Path) -> None:
    path = write(tmp_path / "base", LENGTHS * 200)
    made = offline.learn(path, LANE, Driver().sae, SETTINGS.drift, version=10**12, unit=UNIT)
    header, arrays = read_baseline(made.baseline)
    counts = Counter(len(range(0, min(n, 18) - 5, 6)) for n in LENGTHS * 160)  # of the blocks that each has
    assert header.requests == counts[1] + counts[2] + counts[3]
    assert header.strata == {"short": counts[0], "block1": counts[2] + counts[3], "block2": counts[3]}
    assert arrays["start_histogram"][0] == sum(counts.values())
    assert not any(name.startswith("hour") for name in arrays)


def test_hours_of_the_week_are_those_of_the_calendar() -> None:
    monday = datetime(2024, 1, 1, tzinfo=UTC)
    for hours in (*range(HOURS + 1), 1_000, 40_000):
        at = monday + timedelta(hours=hours, minutes=59, seconds=59)
        assert hour_of_week(int(at.timestamp() * 1000)) == at.weekday() * 24 + at.hour


def test_hours_add_up_what_their_windows_have() -> None:
    windows, learned = calibrated(LANE_LEARNT)[:30], None
    hour_ms = 3_600_000
    for k, window in enumerate(windows):
        learned = absorb(learned, window, at_ms=k * 9 * hour_ms, offset=k)
    assert learned is not None
    projector = LANE_LEARNT.state.projector
    assert projector is not None
    _, arrays = read_baseline(make_baseline(learned, LANE, projector.version + 1, projector, DriftSettings(), 1.0))
    for hour in range(HOURS):
        own = [w for k, w in enumerate(windows) if (k * 9 + 3 * 24) % HOURS == hour]
        assert arrays["hour_requests"][hour] == sum(w.header.requests for w in own)
        assert arrays["hour_fired"][hour] == sum(int(w.arrays["requests_fired"].sum()) for w in own)
    assert (arrays["hour_requests"].dtype, arrays["hour_fired"].dtype) == (np.int64, np.float64)
    assert arrays["hour_requests"].sum() == learned.requests
    assert Hours().after(windows[0], 0).frozen() == {}


def test_lanes_with_strata_hold_what_is_printed() -> None:
    state = LANE_LEARNT.results[MIDDLE].state
    assert held_bytes(state) <= learning_bytes(D_IN, D_SAE, state.requests, 3) + 10_000
    baseline = LANE_LEARNT.state.baseline
    assert baseline is not None
    printed = armed_bytes(D_SAE, baseline.header.requests, list(baseline.header.strata.values()))
    assert 0.8 * printed <= held_bytes(LANE_LEARNT.state) <= printed + 60_000  # score tests of four strata


def test_absurd_claims_of_a_window_enter_no_count() -> None:
    window = calibrated(LANE_LEARNT)[0]
    lying = replace(window, header=structs.replace(window.header, requests=10**30))
    assert absorb(None, lying, 0, 0).hours.requests.sum() == window.header.requests
