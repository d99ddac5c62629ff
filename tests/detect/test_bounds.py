"""The memory that DETECT says a lane holds, against the arrays that it does hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from stream_interp.detect import partition
from stream_interp.detect.state import armed_bytes, learning_bytes
from stream_interp.records.consumed import Consumed
from stream_interp.records.lane import Lane
from stream_interp.records.window import encode_window
from tests.detect.lanes import D_IN, D_SAE, SETTINGS, Driver, requests, windows


def arrays_below(value: Any) -> Iterator[np.ndarray]:
    """All arrays of a state."""
    if isinstance(value, np.ndarray):
        yield value
    elif is_dataclass(value):
        for f in fields(value):
            yield from arrays_below(getattr(value, f.name))
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays_below(item)


def held_bytes(value: Any) -> int:
    """Bytes of all arrays below a state; what is held twice counts once."""
    return sum({id(array): array.nbytes for array in arrays_below(value)}.values())


def test_an_armed_lane_holds_what_is_printed_and_small_change() -> None:
    driver = Driver()
    driver.learn(np.random.default_rng(1))
    driver.feed(requests(np.random.default_rng(2), 16))
    printed = armed_bytes(D_SAE, SETTINGS.baseline_requests, [])
    assert 0.8 * printed <= held_bytes(driver.state) <= printed + 20_000  # score tests, recent scores, sums


def test_a_fitting_lane_holds_what_is_printed_and_small_change() -> None:
    driver = Driver()
    driver.feed(requests(np.random.default_rng(1), 80))
    assert held_bytes(driver.state) <= learning_bytes(D_IN, D_SAE, SETTINGS.baseline_requests, 0) + 5_000


def test_made_up_lanes_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MAX_LANES", 2)
    own = partition.WindowsPartition(0, [], 0, -1, SETTINGS)
    for i in range(5):
        driver = Driver(Lane(model_id=f"made-up-{i}", hook_name="h", sae_fingerprint="toy"))
        window = next(windows(requests(np.random.default_rng(i), 2), driver.shape, 2, 0))
        [envelope] = encode_window(window)
        record = Consumed(
            topic="interp.windows", partition=0, offset=i, timestamp_ms=window.header.closed_at_ms, key=envelope.key,
            headers=envelope.headers, value=envelope.value,
        )  # fmt: skip
        own.take(record, lambda _: None, partition.Told())
    assert len(own.lanes) == 2
    assert own.counters["unreadable_records"] == 3
