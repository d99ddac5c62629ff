"""Requests that are cut or joined, their tokens as ever: no incident, one note that the traffic has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stream_interp import offline
from stream_interp.encode.requests import shape_of
from stream_interp.records.control import read_projector
from stream_interp.settings import DriftSettings, UnitSettings
from tests.detect.lanes import D_IN, LANE, SAE

DRIFT = DriftSettings(clock="requests")
REQUESTS = 3_000  # of which a fifth is short: a stratum of its own
Tokens = list[NDArray[np.float32]]

pytestmark = pytest.mark.statistical


def requests(rng: np.random.Generator, n: int) -> Tokens:
    """Of many lengths; the tokens of one hang together."""
    lengths = np.clip(rng.lognormal(2.5, 0.6, n), 2, 60).astype(int)
    return [(rng.normal(0, 0.5, D_IN) + rng.normal(0, 0.9, (k, D_IN))).astype(np.float32) for k in lengths]


def doubled(of: Tokens) -> Tokens:
    return [np.concatenate(pair) for pair in zip(of[::2], of[1::2], strict=False)]


def halved(of: Tokens) -> Tokens:
    return [r[: max(1, len(r) // 2)] for r in of]


def three_quarters(of: Tokens) -> Tokens:
    return [r[: max(1, len(r) * 3 // 4)] for r in of]


def both(of: Tokens) -> Tokens:
    mixed = [*doubled(of), *halved(of)[: len(of) // 2]]
    return [mixed[k] for k in np.random.default_rng(0).permutation(len(mixed))]


def write(path: Path, of: Tokens) -> Path:
    ids = np.repeat(np.arange(len(of), dtype=np.int32), [len(r) for r in of])
    save_file({"acts": np.concatenate(of), "doc_id": ids}, path)
    return path


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> offline.Learnt:
    path = write(tmp_path_factory.mktemp("length") / "base", requests(np.random.default_rng(1), REQUESTS))
    return offline.learn(path, LANE, SAE, DRIFT, version=1, unit=UnitSettings(tokens=8, blocks=2))


def replayed(learnt: offline.Learnt, path: Path) -> offline.Replay:
    return offline.replay(path, learnt.state, shape_of(LANE, read_projector(learnt.projector)), SAE)


def test_the_baseline_has_a_stratum_of_short_requests_and_one_of_later_tokens(learnt: offline.Learnt) -> None:
    assert learnt.state.baseline is not None
    assert set(learnt.state.baseline.header.strata) == {"short", "block1"}
    assert learnt.state.tests is not None
    for stratum in learnt.state.tests.strata.values():
        assert stratum.scores.armed.any()
        assert stratum.features["rate up"].armed.any()


@pytest.mark.parametrize("altered", [doubled, halved, three_quarters, both])
def test_other_lengths_open_no_incident_and_are_noted_once(
    learnt: offline.Learnt, tmp_path: Path, altered: Callable[[Tokens], Tokens]
) -> None:
    run = replayed(learnt, write(tmp_path / "live", altered(requests(np.random.default_rng(2), 1_600))))
    assert [(a.transition, a.cause_hint) for _, a in run.alerts] == [("noted", "traffic_mix")]


def test_the_same_lengths_are_silent(learnt: offline.Learnt, tmp_path: Path) -> None:
    assert replayed(learnt, write(tmp_path / "live", requests(np.random.default_rng(3), 1_600))).alerts == []


@pytest.mark.parametrize("stratum", ["short", "block1"])
def test_drift_in_one_stratum_alone_is_seen_there(learnt: offline.Learnt, tmp_path: Path, stratum: str) -> None:
    """Negative control: that nothing alarms above is no deafness."""
    unit = read_projector(learnt.projector)[0].unit_tokens
    live = requests(np.random.default_rng(4), 4_000)
    for r in live:
        if stratum == "short" and len(r) < unit:
            r += 1.0
        if stratum == "block1":
            r[unit : 2 * unit] += 1.0
    run = replayed(learnt, write(tmp_path / "live", live))
    alerts = [a for _, a in run.alerts if a.transition != "noted"]
    assert alerts[0].transition == "opened"
    if stratum == "short":
        below = sum(len(r) < read_projector(learnt.projector)[0].short_tokens for r in live)
        assert run.state.reasons.get("too_short", 0) - learnt.state.reasons.get("too_short", 0) == below
    moved = {f.stratum for a in alerts for f in a.features} | {s.stratum for a in alerts for s in a.scores}
    assert moved == {stratum}
    assert all(s.now_median is None for a in alerts for s in a.scores)  # "now" is kept of units alone
