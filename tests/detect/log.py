"""A windows partition made by hand: the records of windows and markers, and a reader that replays them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.records.alert import Alert
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import MARKER_TYPE, Marker
from stream_interp.records.envelope import Envelope, json_record
from stream_interp.records.window import Window, encode_window
from tests.detect.lanes import LANE, SETTINGS, Driver, requests

START_MS = 1_800_000_000_000


def story(seed: int = 1, learn: int = 600, shift: float = 1.5) -> Driver:
    """A lane that learns, is calm, drifts by `shift` and recovers, in windows of 8."""
    driver, rng = Driver(), np.random.default_rng(seed)
    driver.learn(rng, learn)
    driver.feed(requests(rng, 80))
    driver.feed(requests(rng, 80, shift=shift))
    driver.feed(requests(rng, 320))
    return driver


def marker_record(marker: Marker) -> Envelope:
    return json_record(marker.lane.lane_id, MARKER_TYPE, marker)


def consumed(envelopes: Iterable[Envelope], start: int = 0, partition: int = 0) -> list[Consumed]:
    return [
        Consumed("interp.windows", partition, start + k, START_MS + k, e.key, list(e.headers), e.value)
        for k, e in enumerate(envelopes)
    ]


def window_records(windows: Iterable[Window], chunk_bytes: int = 900_000) -> list[Envelope]:
    return [record for window in windows for record in encode_window(window, chunk_bytes)]


def fresh() -> WindowsPartition:
    return WindowsPartition(0, [], 0, -1, SETTINGS)


def replayed(records: Iterable[Consumed], partition: WindowsPartition | None = None) -> tuple[WindowsPartition, Told]:
    """The partition after the records, and what it told; no baseline is known."""
    partition, told = partition or fresh(), Told()
    for record in records:
        partition.take(record, lambda _: None, told)
    return partition, told


def ids(alerts: Iterable[Alert]) -> list[str]:
    return [alert.event_id for alert in alerts]


__all__ = ["LANE", "SETTINGS", "consumed", "fresh", "ids", "marker_record", "replayed", "story", "window_records"]
