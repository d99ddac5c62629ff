"""Recovery, and river's second opinions."""

from __future__ import annotations

import numpy as np
import pytest
from river.drift import ADWIN, PageHinkley

from stream_interp.drift import esr, recovery, second_opinions


def _recovery(p: float, rate: float, ticks: int, streams: int, n: int = 8) -> np.ndarray:
    rng = np.random.default_rng(5)
    e, largest = np.zeros((len(esr.ODDS_RATIOS), streams)), np.zeros(streams)
    for tick in range(1, ticks + 1):
        x = rng.binomial(n, rate, streams).astype(float)
        e = recovery.update(e, np.full(streams, tick), np.full(streams, p), "up", n, x)
        largest = np.maximum(largest, esr.value(e))
    return largest


@pytest.mark.statistical
def test_a_rate_still_outside_rarely_passes_for_recovered() -> None:
    assert (_recovery(p=0.1, rate=0.1, ticks=300, streams=2_000) >= recovery.RECOVERED).mean() <= 1 / recovery.RECOVERED


def test_a_rate_back_inside_is_recognised() -> None:
    assert (_recovery(p=0.1, rate=0.02, ticks=300, streams=200) >= recovery.RECOVERED).mean() > 0.99


def test_second_opinions_equal_river_after_every_save_and_restore() -> None:
    rng = np.random.default_rng(8)
    adwin, page_hinkley, opinion, drifts = ADWIN(), PageHinkley(), second_opinions.Opinion(), 0
    for x in np.concatenate([rng.normal(0, 1, 400), rng.normal(40, 1, 400)]).tolist():
        opinion = second_opinions.update(opinion, x)  # every update restores from plain bytes
        adwin.update(x)
        page_hinkley.update(x)
        drifts += adwin.drift_detected + page_hinkley.drift_detected
        assert opinion.drifts == drifts
    assert drifts >= 2
