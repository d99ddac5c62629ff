"""In what a lane is encoded: the first proposal binds it, and requests that are not encoded so make it blind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec import structs

from stream_interp.detect.orders import apply_baseline
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import StepResult, step
from stream_interp.detect.view import status_of
from stream_interp.encode.window import OpenWindow
from stream_interp.records.alert import Position
from stream_interp.records.control import make_control, read_baseline
from stream_interp.records.window import CutRef
from tests.detect.lanes import D_IN, D_SAE, REQUEST_MS, Driver, requests

RNG = np.random.default_rng(7)
MINUTE_REQUESTS = 60_000 // REQUEST_MS


def bound(*, armed: bool = False) -> Driver:
    """A lane that is bound to bfloat16: in *calibrate*, or armed."""
    driver = Driver()
    driver.feed(requests(RNG, 120), proposed_dtype="bfloat16")
    if armed:
        driver.feed(requests(RNG, 480))
    return driver


def left_out(driver: Driver, n: int = 8) -> StepResult:
    """A window of an ENCODE that lacks the lane's dtype."""
    window = OpenWindow(driver.shape, "float32", D_IN, D_SAE)
    window.not_counted["dtype_unavailable"] += n
    start, driver.offset = driver.offset, driver.offset + n
    closed = window.close(CutRef(topic="t", partition=1, a=start, b=start + n), driver.offset * REQUEST_MS)
    result = step(driver.state, closed, Position(partition=0, offset=driver.offset - 1), driver.offset * REQUEST_MS)
    driver.state = result.state
    return result


def test_the_first_proposal_in_log_order_binds_the_lane_over_a_restart() -> None:
    driver = Driver()
    driver.feed(requests(RNG, 40))
    driver.feed(requests(RNG, 40), proposed_dtype="bfloat16")
    driver.state = load_state(dump_state(driver.state))
    driver.feed(requests(RNG, 40), proposed_dtype="float16")
    assert driver.shape.compute_dtype == driver.state.compute_dtype == "bfloat16"
    driver.feed(requests(RNG, 480))
    assert driver.state.phase == "armed"
    assert driver.state.baseline is not None
    assert driver.state.baseline.header.compute_dtype == "bfloat16"
    assert {w.header.compute_dtype for w in driver.windows if w.header.projector_version} == {"bfloat16"}


def test_without_a_proposal_it_is_float32() -> None:
    driver = Driver()
    driver.feed(requests(RNG, 120))
    assert (driver.state.phase, driver.shape.compute_dtype) == ("calibrate", "float32")


def test_a_baseline_from_elsewhere_says_what_its_projector_binds_to() -> None:
    driver = bound(armed=True)
    assert driver.state.baseline is not None
    header = structs.replace(driver.state.baseline.header, version=10**9, projector_version=10**9)
    record = make_control("baseline", header, driver.state.baseline.arrays, "ada", "back")
    assert read_baseline(record)[0].compute_dtype == "bfloat16"
    after = apply_baseline(driver.state, record, driver.state.settings.drift, driver.state.position).state
    assert after.projector is not None
    assert (after.projector.version, after.compute_dtype) == (10**9, "bfloat16")


def test_windows_of_another_dtype_are_neither_learnt_from_nor_tested() -> None:
    for driver in (bound(), bound(armed=True)):
        before = driver.state
        assert driver.feed(requests(RNG, 16, shift=3.0), compute_dtype="float32") == ["blind"]
        after = driver.state
        assert after.reasons == {"other_dtype": 16}
        assert (after.counted, after.requests, after.learned) == (before.counted, before.requests, before.learned)
        assert after.evidence is before.evidence
        assert status_of(after, 0, 0).state == "blind"


def test_fit_windows_of_another_dtype_than_float32_do_not_count() -> None:
    driver = Driver()
    assert driver.feed(requests(RNG, 8), compute_dtype="bfloat16") == ["blind"]
    assert driver.state.learned is None
    assert driver.state.reasons == {"other_dtype": 8}


def test_a_lane_of_which_no_request_can_be_encoded_is_blind_and_coverage_says_why() -> None:
    driver = bound(armed=True)
    counted = driver.state.counted
    alerts = [alert for _ in range(20) for alert in left_out(driver).alerts]
    assert [(a.transition, a.severity, a.cause_hint) for a in alerts] == [("blind", "critical", "compute_dtype")]
    status = status_of(driver.state, 0, 0)
    assert status.state == "blind"
    assert "compute_dtype" in status.reason
    assert status.coverage.reasons == {"dtype_unavailable": 160}
    assert (status.coverage.requests_counted, status.coverage.requests_seen) == (counted, counted + 160)


def test_one_worker_of_several_that_lacks_it_is_one_story_that_ends_a_minute_after_its_last_window() -> None:
    driver = bound(armed=True)
    told = []
    for _ in range(10):
        told += [alert.transition for alert in left_out(driver).alerts]
        told += driver.feed(requests(RNG, 8))
    assert told == ["blind"]
    driver.state = load_state(dump_state(driver.state))
    assert driver.feed(requests(RNG, MINUTE_REQUESTS - 16)) == []
    assert status_of(driver.state, 0, 0).state == "blind"
    assert driver.feed(requests(RNG, 16)) == ["seeing"]
    assert status_of(driver.state, 0, 0).state == "ok"


def test_what_an_order_to_learn_again_left_behind_does_not_count_against_the_new_lane() -> None:
    """Windows of the projector before are on their way."""
    driver = bound(armed=True)
    driver.state = replace(driver.state, phase="fit", projector=None, baseline=None, tests=None, evidence=None)
    assert left_out(driver).alerts == ()
    assert not driver.state.unencoded
