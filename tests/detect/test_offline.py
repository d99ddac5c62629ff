"""Learning from a file and replaying one: the same lane as on Kafka, whatever the lengths of the requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stream_interp import offline
from stream_interp.cli.backtest import _incident_report
from stream_interp.encode.requests import shape_of
from stream_interp.errors import UsageError
from stream_interp.records.control import read_projector
from tests.detect.lanes import D_IN, LANE, SAE, SETTINGS, TOKENS, Driver, requests


def write(
    path: Path, lengths: Sequence[int], *, shift: float = 0.0, seed: int = 1, special: Sequence[int] = ()
) -> Path:
    """Requests of so many standard normal tokens; all tokens of the requests in `special` are not counted."""
    ids = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    acts = np.random.default_rng(seed).standard_normal((len(ids), D_IN)).astype(np.float32) + np.float32(shift)
    save_file({"acts": acts, "request_id": ids, "special_mask": np.isin(ids, special)}, path)
    return path


def learn(path: Path) -> offline.Learnt:
    return offline.learn(path, LANE, SAE, SETTINGS.drift, version=1_000)


def test_short_requests_of_a_file_are_left_out_of_its_baseline(tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(3, 40, 600)
    learnt = learn(write(tmp_path / "base", lengths.tolist()))
    header, unit = learnt.state.baseline.header, read_projector(learnt.projector)[0].unit_tokens  # type: ignore[union-attr]
    assert header.fit_requests == 120
    assert header.requests == (lengths[120:] >= unit).sum()
    assert header.too_short == (lengths[120:] < unit).sum() > 20
    shape = shape_of(LANE, read_projector(learnt.projector))
    null = write(tmp_path / "null", lengths[::-1].tolist(), seed=3)
    assert offline.replay(null, learnt.state, shape, SAE).alerts == []
    drift = write(tmp_path / "drift", lengths[::-1].tolist(), shift=1.0, seed=4)
    run = offline.replay(drift, learnt.state, shape, SAE)
    assert run.alerts[0][1].transition == "opened"
    listed = run.state.incident.listed.items()  # type: ignore[union-attr]
    assert len(run.detections) == sum(len(tests) for name, tests in listed if "scores" not in name)  # each once


def test_requests_without_a_counted_token_do_not_hold_up_the_phases(tmp_path: Path) -> None:
    learnt = learn(write(tmp_path / "base", [TOKENS] * 600, special=[5, 300]))
    assert learnt.state.phase == "armed"
    assert learnt.state.compute_dtype == "float32"
    assert learnt.state.reasons == {"too_short": 2}
    assert learnt.state.baseline.header.fit_requests == 119  # type: ignore[union-attr]
    assert learnt.state.baseline.header.requests == 479  # type: ignore[union-attr]


def test_too_few_requests_that_count_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "base", [TOKENS] * 60, special=range(20, 60))
    with pytest.raises(UsageError, match=re.escape("too few count (8 in calibrate; 40 too_short)")):
        learn(path)


@pytest.mark.parametrize("row", [10, 3_000])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e16])
def test_values_that_are_not_finite_are_refused_by_request(tmp_path: Path, row: int, value: float) -> None:
    ids = np.repeat(np.arange(600, dtype=np.int32), TOKENS)
    acts = np.random.default_rng(5).standard_normal((len(ids), D_IN)).astype(np.float32)
    acts[row, 3] = value
    save_file({"acts": acts, "request_id": ids}, tmp_path / "base")
    with pytest.raises(UsageError, match=f"request {row // TOKENS}: NaN, infinity"):
        learn(tmp_path / "base")


def test_the_order_of_a_file_is_judged(tmp_path: Path) -> None:
    calm = np.random.default_rng(6).standard_normal((600 * TOKENS, D_IN)).astype(np.float32)
    calm[len(calm) * 2 // 3 :] += 1
    ids = np.repeat(np.arange(600, dtype=np.int32), TOKENS)
    save_file({"acts": calm, "request_id": ids}, tmp_path / "base")
    with pytest.raises(UsageError, match="not stationary"):
        learn(tmp_path / "base")


def test_an_incident_of_the_stream_before_opened_before_this_one(tmp_path: Path) -> None:
    learnt = learn(write(tmp_path / "base", [TOKENS] * 600))
    shape = shape_of(LANE, read_projector(learnt.projector))
    first = offline.replay(write(tmp_path / "drift", [TOKENS] * 100, shift=1.0, seed=7), learnt.state, shape, SAE)
    opened = first.alerts[0][0]
    assert _incident_report(first.alerts)["opened_request"] == opened
    second = offline.replay(write(tmp_path / "null", [TOKENS] * 3_000, seed=8), first.state, shape, SAE)
    assert [alert.transition for _, alert in second.alerts] == ["resolved"]
    assert _incident_report(second.alerts)["opened_request"] == opened - 100


def test_step_writes_to_nothing_that_it_is_given() -> None:
    """Arrays of every state are made read-only: through fit, calibrate, an incident and its end."""
    driver, rng = Driver(), np.random.default_rng(9)
    for items in (requests(rng, 120), requests(rng, 480), requests(rng, 60, shift=1.0), requests(rng, 2_500)):
        for start in range(0, len(items), 8):
            _freeze(driver.state)
            driver.feed(items[start : start + 8])
    assert driver.state.phase == "armed"
    assert driver.state.incidents == 1
    assert driver.state.incident is None


def _freeze(value: object) -> None:
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif is_dataclass(value):
        for name in value.__dataclass_fields__:
            _freeze(getattr(value, name))
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _freeze(item)


@pytest.mark.parametrize("alike", [False, True])
def test_the_groups_and_segments_of_a_file_enter_its_baseline(tmp_path: Path, alike: bool) -> None:
    """200 customers of six requests each, in any order; alike: a customer's requests are six times the same one."""
    rng, path, customers, tokens = np.random.default_rng(7), tmp_path / "base", 200, 5
    of_customer = rng.permutation(np.repeat(np.arange(customers), 6))
    acts = rng.standard_normal((customers if alike else len(of_customer), tokens, D_IN)).astype(np.float32)
    rows = acts[of_customer if alike else np.arange(len(of_customer))].reshape(-1, D_IN)
    arrays = {"acts": rows, "request_id": np.repeat(np.arange(len(of_customer)), tokens)}
    save_file(
        arrays | {"group_id": np.repeat(of_customer, tokens), "segment_id": np.repeat(of_customer % 2, tokens)}, path
    )
    baseline = learn(path).state.baseline
    assert baseline is not None
    assert baseline.header.design_effect == pytest.approx(1.0, abs=0.2)
    assert baseline.header.design_effect_of_groups == pytest.approx(4.8 if alike else 1.0, rel=0.2)  # 4/5 calibrate
    assert baseline.header.dependent == alike
    halves = baseline.header.segments
    assert set(halves) == {"0", "1"}
    assert sum(halves.values()) == baseline.header.requests
