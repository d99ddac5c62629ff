"""Run lengths of river's detectors, each tuned by bisection to one mean run length on independent firings.

At their defaults each has another run length, and delays say nothing. They learn the mean from the stream: the change
comes after `BEFORE` null requests, and streams that alarmed until then are left out.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from stream_interp.drift.classical import DETECTORS
from stream_interp.drift.esr import Floats
from tests.bench.delay_mixture import Estimate

ARL, BEFORE, STREAMS = 10_000, 5_000, 500
# The setting of each that is tuned, and where it is looked for: from short to long runs.
TUNED = {
    "adwin": ("delta", 1.0, 1e-6),
    "hddm_a": ("drift_confidence", 0.9, 1e-6),
    "hddm_w": ("drift_confidence", 0.9, 1e-6),
    "page_hinkley": ("threshold", 0.3, 300.0),
}
ONE_SIDED = {"hddm_a", "hddm_w"}  # as river has them: they see rises, and are given 1 − x where a fall is to be seen
HALVINGS = 7


class Rival(NamedTuple):
    """A detector with its settings; `turned`: it is given 1 − x."""

    name: str
    config: Any
    turned: bool


class Run(NamedTuple):
    """Of K streams: state after the requests, and the request, from 1, of each one's first alarm; inf where none."""

    state: Any
    first: Floats


def run(rival: Rival, state: Any, rate: float, requests: int, rng: np.random.Generator) -> Run:
    """STREAMS streams from a state on; ends early once each has alarmed."""
    step, first = DETECTORS[rival.name].step, np.full(STREAMS, np.inf)
    for request in range(1, requests + 1):
        state, drift = step(rival.config, state, (rng.random(STREAMS) < rate) != rival.turned)
        first[drift] = np.minimum(first[drift], request)
        if np.isfinite(first).all():
            break
    return Run(state, first)


def started(rival: Rival) -> Any:
    """The state before the first request."""
    return DETECTORS[rival.name].start(rival.config, STREAMS)


def mean_run_length(first: Floats, requests: float) -> Estimate:
    """Of runs cut at `requests`: what was seen, and beyond it the rate of alarms of its second half for ever."""
    seen, half = np.minimum(first, requests), requests / 2
    late = ((first > half) & (first <= requests)).sum()
    left = (first > requests).mean()
    tail = left * (seen - half).clip(0).sum() / late if late else (np.inf if left else 0.0)
    mean = float(seen.mean() + tail)
    return Estimate(mean, mean / np.sqrt(max(np.isfinite(first).sum(), 1)))


@cache
def tuned(name: str, rate: float, turned: bool) -> tuple[Rival, Estimate]:
    """The settings whose mean run length is nearest ARL, by bisection in the logarithm, and that length."""
    field, short, long = TUNED[name]
    tried: list[tuple[Rival, Estimate]] = []
    for _ in range(HALVINGS):
        middle = float(np.sqrt(short * long))
        rival = Rival(name, DETECTORS[name].config(**{field: middle}), turned)
        rng = np.random.default_rng(0)  # the same streams each time: of two settings the stricter one alarms later
        tried.append((rival, mean_run_length(run(rival, started(rival), rate, ARL, rng).first, ARL)))
        short, long = (middle, long) if tried[-1][1].mean < ARL else (short, middle)
    return min(tried, key=lambda t: abs(np.log(t[1].mean / ARL)))


def is_tuned(arl: Estimate) -> bool:
    """Whether a run length is within a factor of two of ARL: on rare events some jump over it or never come near."""
    return bool(ARL / 2 <= arl.mean <= ARL * 2)


def delays(rival: Rival, null: float, rates: list[float], seed: int) -> list[Estimate]:
    """Mean requests until the alarm after a change to each rate, of streams that have not alarmed before."""
    calm = run(rival, started(rival), null, BEFORE, np.random.default_rng((seed, 0)))
    found = []
    for rate in rates:
        first = run(rival, calm.state, rate, ARL, np.random.default_rng((seed, 1))).first
        found.append(mean_run_length(first[np.isinf(calm.first)], ARL))
    return found
