"""The health scalars from sums: unbiased however few tokens; of old records, what can still be used."""

from __future__ import annotations

import numpy as np
import pytest

from stream_interp.detect import health
from stream_interp.detect.health import HealthSums
from stream_interp.detect.state_codec import StateHeader, dump_state, load_state
from stream_interp.records.arrays import pack, unpack
from stream_interp.records.window import LaneSums
from tests.detect.lanes import D_IN, Driver, requests


def sums_of(x: np.ndarray, xhat: np.ndarray, massive: int = 0) -> HealthSums:
    sums = LaneSums(
        error_tokens=len(x), x_sq_sum=float((x**2).sum()), err_sq_sum=float(((x - xhat) ** 2).sum()),
        norm_sum=float(np.linalg.norm(x, axis=1).sum()), massive_tokens=massive,
    )  # fmt: skip
    return HealthSums(len(x) + massive, sums, x.sum(0))


@pytest.mark.parametrize("tokens", [2, 3, 5, 32])
def test_explained_variance_of_few_tokens_is_not_biased(tokens: int) -> None:
    rng, found = np.random.default_rng(tokens), []
    for _ in range(2_000):
        x = rng.standard_normal((tokens, 400)) + 3
        found.append(health.scalars(sums_of(x, x + rng.normal(0, 0.1**0.5, x.shape)), with_sae=True))
    assert np.mean([values["explained_variance"] for values in found]) == pytest.approx(0.9, abs=0.003)


def test_the_norm_is_of_all_tokens_that_are_not_massive() -> None:
    x = np.full((4, 9), 2.0)
    assert health.scalars(sums_of(x, x, massive=3), with_sae=False)["norm"] == 6.0


def test_sums_over_another_width_begin_anew() -> None:
    """Of transcoders they once were of the input."""
    old, new = sums_of(np.ones((3, 5)), np.ones((3, 5))), sums_of(np.ones((2, 4)), np.ones((2, 4)))
    assert health.add(old, new) is new
    assert health.decayed(old, new, 7) is new


def test_a_lane_that_learned_before_its_width_was_kept_goes_on() -> None:
    driver, rng = Driver(), np.random.default_rng(1)
    driver.feed(requests(rng, 40))
    assert driver.state.learned is not None
    assert driver.state.learned.d_in == D_IN
    header, arrays = unpack(dump_state(driver.state), StateHeader)
    assert header.state["learned"].pop("d_in") == D_IN
    driver.state = load_state(pack(header, arrays))
    assert driver.state.learned is not None
    assert driver.state.learned.d_in == 0
    driver.feed(requests(rng, 600))
    assert driver.state.projector is not None
    assert driver.state.projector.d_in == D_IN
