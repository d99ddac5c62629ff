"""Why a lane drifted: each class from a simulated lane, and none of the others in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import json

from stream_interp.detect.alerts import TOP_EFFECTS, feature_drifts, largest_effects
from stream_interp.detect.cause import cause_of
from stream_interp.detect.state import LaneState
from stream_interp.detect.state_codec import StateHeader, dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.view import status_of
from stream_interp.encode.requests import Request
from stream_interp.records.alert import Alert, CauseEvidence, Position
from stream_interp.records.arrays import pack, unpack
from stream_interp.records.window import CutRef
from tests.detect.lanes import D_IN, D_SAE, TOKENS, Driver, ToySAE, requests
from tests.topics.samples import ALERT

SEEDS = 20
SIZE, PARTITIONS, WINDOWS = 8, 4, 60
Rng = np.random.Generator


class WorseSAE(ToySAE):
    """Fires as before and rebuilds half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.w_dec = self.w_dec / 2


def at_positions(items: list[Request], rng: Rng, later: float = 0.0) -> list[Request]:
    """Half of them begin at 0, half at 9, as in the baseline; a share `later` at 40. Of two segments, as there."""
    starts = np.where(rng.random(len(items)) < later, 40, 9 * rng.integers(2, size=len(items)))
    segments = ["cards" if r.acts[0, -1] > 0.5 else "loans" for r in items]  # of a coordinate that nothing shifts
    return [
        replace(r, positions=np.arange(s, s + len(r.acts)), segment=segment)
        for r, s, segment in zip(items, starts, segments, strict=True)
    ]


@pytest.fixture(scope="module")
def armed() -> list[Driver]:
    lanes = []
    for seed in range(4):
        rng, driver = np.random.default_rng(100 + seed), Driver()
        for n in (120, 480):
            driver.feed(at_positions(requests(rng, n), rng), acts_dtype="float16")
        assert driver.state.phase == "armed"
        lanes.append(driver)
    return lanes


def copy_of(driver: Driver, sae: ToySAE | None = None) -> Driver:
    copy = Driver(sae=sae or driver.sae)
    copy.state, copy.shape, copy.offset = driver.state, driver.shape, driver.offset
    return copy


Made = tuple[list[Request], dict[str, Any]]


def run(driver: Driver, seed: int, made: Callable[[Rng, int, int], Made], windows: int = WINDOWS) -> list[Alert]:
    """Windows of SIZE requests from partitions in random order; `made` has the rng, the partition and the window."""
    rng, alerts = np.random.default_rng(seed), []
    for k in range(windows):
        partition = int(rng.integers(PARTITIONS))
        items, said = made(rng, partition, k)
        cut = CutRef(topic="t", partition=partition, a=driver.offset, b=driver.offset + SIZE)
        driver.feed(items, size=SIZE, cut=cut, **{"acts_dtype": "float16", **said})
        alerts += driver.results[-1].alerts
    return [alert for alert in alerts if alert.transition not in {"noted", "note_ended"}]


def everywhere(rng: Rng, partition: int, k: int) -> Made:
    return at_positions(requests(rng, SIZE, shift=1.0), rng), {}


def in_one(rng: Rng, partition: int, k: int) -> Made:
    return at_positions(requests(rng, SIZE, shift=1.0 if partition == 1 else 0.0), rng), {}


def in_two(rng: Rng, partition: int, k: int) -> Made:
    return at_positions(requests(rng, SIZE, shift=1.0 if partition in (1, 2) else 0.0), rng), {}


def nothing(rng: Rng, partition: int, k: int) -> Made:
    return at_positions(requests(rng, SIZE), rng), {}


def in_bfloat16(rng: Rng, partition: int, k: int) -> Made:
    return everywhere(rng, partition, k)[0], {"acts_dtype": "bfloat16"}


def selected(rng: Rng, partition: int, k: int) -> Made:
    """Half of the requests are lost, and those are the ones of small norm; nothing else has changed."""
    drawn = sorted(requests(rng, 2 * SIZE), key=lambda r: float(np.square(r.acts).sum()))
    return at_positions(drawn[SIZE:], rng), {"not_counted": {"incomplete": SIZE}}


def shifted_and_lossy(rng: Rng, partition: int, k: int) -> Made:
    return everywhere(rng, partition, k)[0], {"not_counted": {"late": 2}}


def begun_later(rng: Rng, partition: int, k: int) -> Made:
    """Six in ten begin at other positions, and look different there."""
    later = rng.random(SIZE) < 0.6
    items = [requests(rng, 1, shift=1.5 * moved)[0] for moved in later]
    return [at_positions([r], rng, later=float(moved))[0] for r, moved in zip(items, later, strict=True)], {}


def shifted_and_some_later(rng: Rng, partition: int, k: int) -> Made:
    return at_positions(requests(rng, SIZE, shift=1.0), rng, later=0.6), {}


def of_another_segment(rng: Rng, partition: int, k: int) -> Made:
    """Six in ten are of another segment, and look different there."""
    other = rng.random(SIZE) < 0.6
    items = at_positions([requests(rng, 1, shift=1.5 * moved)[0] for moved in other], rng)
    return [replace(r, segment="web") if moved else r for r, moved in zip(items, other, strict=True)], {}


def shifted_and_some_of_another(rng: Rng, partition: int, k: int) -> Made:
    items = at_positions(requests(rng, SIZE, shift=1.0), rng)
    return [replace(r, segment="web") if rng.random() < 0.6 else r for r in items], {}


# What happens, the cause in the end, and the causes told on the way to it. A mean of which the null allows 40 % may be
# 98 % where six in ten begin elsewhere, so that of a lane whose strongest test is such a one it is said: in 1 of 20.
CONFUSED = {"positions beside": 2, "segments beside": 2}
CASES = {
    "data": (everywhere, "data_shift", {"data_shift"}),
    "one partition": (in_one, "pipeline", {"data_shift", "pipeline"}),
    "two partitions": (in_two, "pipeline", {"data_shift", "pipeline"}),
    "losses that select": (selected, "pipeline", {"data_shift", "pipeline"}),
    "losses beside": (shifted_and_lossy, "data_shift", {"data_shift"}),
    "dtype": (in_bfloat16, "model_change", {"model_change"}),
    "positions": (begun_later, "traffic_mix", {"data_shift", "traffic_mix"}),
    "positions beside": (shifted_and_some_later, "data_shift", {"data_shift", "traffic_mix"}),
    "segments": (of_another_segment, "traffic_mix", {"data_shift", "traffic_mix"}),
    "segments beside": (shifted_and_some_of_another, "data_shift", {"data_shift", "traffic_mix"}),
}


@pytest.mark.statistical
@pytest.mark.parametrize("case", CASES)
def test_each_cause_is_named_and_no_other(armed: list[Driver], case: str) -> None:
    made, wanted, allowed = CASES[case]
    windows = 100 if wanted == "traffic_mix" else WINDOWS
    named, told = list[str](), set[str]()
    for seed in range(SEEDS):
        driver = copy_of(armed[seed % len(armed)])
        alerts = run(driver, seed, made, windows)
        assert driver.state.incident is not None
        named.append(driver.state.incident.cause)
        told |= {alert.cause_hint for alert in alerts}
    assert named.count(wanted) >= SEEDS - CONFUSED.get(case, 0)
    assert told <= allowed


@pytest.mark.statistical
def test_an_sae_that_rebuilds_less_is_to_blame_itself(armed: list[Driver]) -> None:
    for seed in range(SEEDS):
        driver = copy_of(armed[seed % len(armed)], WorseSAE())
        alerts = run(driver, seed, nothing, 20)
        assert {alert.cause_hint for alert in alerts} == {"sae_health"}
        found = evidence_of(alerts[-1], "sae_health")
        assert found.numbers["explained_variance"] < found.numbers["explained_variance_baseline"] - 0.1
        assert "Explained variance" in found.text
        assert "L0" in found.text


@pytest.mark.statistical
@pytest.mark.parametrize("sae", [ToySAE(), None])
def test_massive_tokens_alone_are_no_fault_of_the_sae(sae: ToySAE | None) -> None:
    """They are seen without one, and where there is none it cannot be to blame."""
    rng, driver = np.random.default_rng(1), Driver(sae=sae)
    for n in (120, 480, 40):
        driver.shape = replace(driver.shape, massive="norm:12")
        driver.feed(requests(rng, n))
    last = np.arange(TOKENS)[:, None] == TOKENS - 1
    driver.feed([replace(r, acts=np.where(last, 10 * r.acts, r.acts)) for r in requests(rng, 80)])
    incident = driver.state.incident
    assert incident is not None
    assert incident.groups == ("health",)
    cause = cause_of(driver.state, incident)
    assert cause.name == "data_shift"
    assert "massive_share" in cause.evidence[-1].text


def test_no_partition_is_blamed_for_what_all_have(armed: list[Driver]) -> None:
    """A weak change of all, whose partitions differ by chance alone, looked at after every window."""
    weak = [
        run(copy_of(armed[s % 4]), s, lambda rng, *_: (at_positions(requests(rng, SIZE, shift=0.5), rng), {}), 80)
        for s in range(SEEDS)
    ]
    assert sum(len(alerts) > 0 for alerts in weak) >= SEEDS - 1
    assert "pipeline" not in {alert.cause_hint for alerts in weak for alert in alerts}


def evidence_of(alert: Alert, cause: str) -> CauseEvidence:
    return next(evidence for evidence in alert.causes if evidence.cause == cause)


def test_a_pipeline_is_told_in_words_with_its_partition_once(armed: list[Driver]) -> None:
    driver = copy_of(armed[0])
    alerts = run(driver, 1, in_one)
    assert [a.cause_hint for a in alerts if a.transition == "opened"] == ["data_shift"]
    first = next(a for a in alerts if a.cause_hint == "pipeline")
    assert (first.transition, first.runbook) == ("updated", "pipeline.md")
    assert sum(a.cause_hint == "pipeline" for a in alerts) == len(alerts) - alerts.index(first)  # it stays so
    found = evidence_of(first, "pipeline")
    assert found.points
    assert "input partition 1 alone" in found.text
    assert found.numbers["mean_there"] > 0.5 > found.numbers["baseline_allows"] > found.numbers["mean_elsewhere"]
    assert not evidence_of(first, "data_shift").points
    card = status_of(driver.state, 0, 0).incident
    assert card is not None
    assert card.cause_hint == "pipeline"
    assert [e.cause for e in card.causes] == ["pipeline", "model_change", "sae_health", "traffic_mix", "data_shift"]
    assert card.evidence_request == alerts[-1].evidence_request > 0


def test_one_partition_tells_nothing_of_others(armed: list[Driver]) -> None:
    driver = copy_of(armed[0])
    driver.feed(requests(np.random.default_rng(1), 200, shift=1.0), acts_dtype="float16")
    assert driver.state.incident is not None
    assert "one input partition" in cause_of(driver.state, driver.state.incident).evidence[0].text


@pytest.mark.parametrize("when", ["long before", "after it opened"])
def test_another_dtype_at_another_time_is_not_the_cause(armed: list[Driver], when: str) -> None:
    driver, rng = copy_of(armed[0]), np.random.default_rng(3)
    dtypes = ["bfloat16", "bfloat16"] if when == "long before" else ["float16", "bfloat16"]
    driver.feed(at_positions(requests(rng, 400), rng), acts_dtype=dtypes[0])
    driver.feed(at_positions(requests(rng, 40, shift=1.0), rng), acts_dtype=dtypes[0])
    driver.feed(at_positions(requests(rng, 200, shift=1.0), rng), acts_dtype=dtypes[1])
    assert driver.state.incident is not None
    assert driver.state.incident.cause == "data_shift"


def test_a_lane_armed_from_elsewhere_knows_no_dtype_before(armed: list[Driver]) -> None:
    driver, rng = copy_of(armed[0]), np.random.default_rng(4)
    driver.state = replace(driver.state, acts_dtypes={})
    driver.feed(at_positions(requests(rng, 40, shift=1.0), rng), acts_dtype="bfloat16")
    assert driver.state.incident is not None
    assert driver.state.incident.cause == "data_shift"


def replayed(state: LaneState, driver: Driver, reload: bool) -> tuple[LaneState, list[Alert]]:
    alerts = list[Alert]()
    for window in driver.windows:
        at = Position(partition=0, offset=window.header.cut.b - 1)
        result = step(state, window, at, window.header.closed_at_ms)
        state, alerts = load_state(dump_state(result.state)) if reload else result.state, [*alerts, *result.alerts]
    return state, alerts


@pytest.mark.parametrize("reload", [False, True])
def test_causes_are_a_function_of_the_log_through_checkpoints(armed: list[Driver], reload: bool) -> None:
    driver = copy_of(armed[1])
    told = run(driver, 5, in_one)
    assert {"data_shift", "pipeline"} == {alert.cause_hint for alert in told}
    assert [a for a in replayed(armed[1].state, driver, reload)[1] if a.transition != "noted"] == told


def test_an_incident_of_before_goes_on_without_a_witness(armed: list[Driver]) -> None:
    driver = copy_of(armed[2])
    run(driver, 6, in_one, 40)
    header, arrays = unpack(dump_state(driver.state), StateHeader)
    for name in ("witness", "seen", "lost", "cause"):
        header.state["incident"].pop(name)
    header.state.pop("acts_dtypes")
    driver.state = load_state(pack(header, {k: a for k, a in arrays.items() if "witness" not in k}))
    assert run(driver, 7, in_one, 40) == []  # that its cause is told by less from now on is no news
    assert driver.state.incident is not None
    assert driver.state.incident.cause == "data_shift"
    assert "not followed" in cause_of(driver.state, driver.state.incident).evidence[0].text


def test_alerts_of_before_say_nothing_of_causes() -> None:
    old = json.decode(json.encode(ALERT))
    for name in ("causes", "by_effect"):
        old.pop(name)
    decoded = json.decode(json.encode(old), type=Alert)
    assert (decoded.causes, decoded.by_effect) == ([], [])
    assert decoded.moved_most == decoded.features


def test_features_by_effect_are_those_that_moved_most_of_all_listed(armed: list[Driver]) -> None:
    driver = copy_of(armed[3])
    run(driver, 8, everywhere)
    state, incident = driver.state, driver.state.incident
    assert incident is not None
    assert state.tests is not None
    by_effect, everything = largest_effects(state, incident), feature_drifts(state, incident, top=None)
    n = state.tests.unit.requests

    def moved(drift: Any) -> float:
        level = drift.rate_baseline if drift.measure == "rate" else drift.magnitude_baseline
        now = drift.rate_now if drift.measure == "rate" else drift.magnitude_now
        n_now = drift.requests_now if drift.measure == "rate" else 200
        n_before = n * drift.rate_baseline if drift.measure == "magnitude_when_fired" else n
        return abs(np.log((now * n_now + 0.5) / (n_now + 1) / ((level * n_before + 0.5) / (n_before + 1))))

    assert len(by_effect) == TOP_EFFECTS < len(everything)
    assert all(drift in everything for drift in by_effect)
    assert len({drift.feature for drift in by_effect}) == TOP_EFFECTS
    rates = [drift for drift in everything if drift.measure == "rate"]
    assert by_effect[0].measure != "rate" or by_effect[0] == max(rates, key=moved)
    assert moved(by_effect[0]) >= moved(by_effect[-1]) - 0.05
    assert [d.feature for d in by_effect] != [d.feature for d in everything[:TOP_EFFECTS]]


def test_a_traffic_test_near_its_threshold_is_said(armed: list[Driver]) -> None:
    over = []
    for made in (everywhere, shifted_and_some_later):
        driver = copy_of(armed[0])
        over.append(evidence_of(run(driver, 9, made, 5)[0], "traffic_mix").numbers["over_threshold"])
        assert driver.state.incident is not None
        over.append(cause_of(driver.state, driver.state.incident).evidence[3].numbers["over_threshold"])
    assert 0 < over[1] < over[3]
    assert over[2] < over[3]


def test_the_sae_that_rebuilds_less_fires_as_before() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((TOKENS, D_IN)).astype(np.float32))
    assert torch.equal(WorseSAE().firings(x).dense(TOKENS, D_SAE), ToySAE().firings(x).dense(TOKENS, D_SAE))
