"""What bounds a worker: the rate of dead letters, the size of a poll, the number of lanes."""

from __future__ import annotations

import pytest
import torch

from stream_interp.encode import lanes as lanes_module
from stream_interp.encode import requests
from stream_interp.encode.bounds import (
    MAX_POLL_RECORDS,
    MIN_POLL_RECORDS,
    SAE_TIMES,
    memory_bound_bytes,
    next_poll_records,
)
from stream_interp.encode.dead_letter_rate import DeadLetterRate
from stream_interp.encode.lanes import Lanes
from stream_interp.errors import StreamInterpError
from stream_interp.records.lane import NO_SAE, Lane
from stream_interp.records.moments import MOMENT_COORDINATES
from stream_interp.settings import RequestSettings
from tests.encode.streams import Chunk, feed, record, settings, started


def test_the_rate_needs_a_thousand_records_within_a_minute():
    rate = DeadLetterRate(0.9)
    rate.add(0.0, 999, {"empty": 999})
    rate.add(60.0, 999, {"empty": 999})  # the first are out of sight by now
    with pytest.raises(StreamInterpError, match=r"100.0% of 1,000 records .* mostly empty .*dlq.max_rate"):
        rate.add(61.0, 1, {"empty": 1})


def test_at_the_rate_the_worker_goes_on():
    rate = DeadLetterRate(0.9)
    rate.add(0.0, 10_000, {"empty": 5_000, "non_finite": 4_000})
    with pytest.raises(StreamInterpError):
        rate.add(1.0, 1, {"empty": 1})


def test_zero_never_stops():
    DeadLetterRate(0.0).add(0.0, 10_000, {"empty": 10_000})


def test_polls_shrink_when_a_turn_takes_long_or_brings_much_and_grow_back():
    assert next_poll_records(100, 100, 1_000, 10.0) == 10
    assert next_poll_records(100, 100, 640 * 2**20, 0.1) == 10
    assert next_poll_records(100, 100, 1_000, 0.1) == 200
    assert next_poll_records(100, 3, 1_000, 0.1) == 100
    assert next_poll_records(100, 0, 0, 0.0) == 100
    assert next_poll_records(10, 10, 1, 1e9) == MIN_POLL_RECORDS
    assert next_poll_records(MAX_POLL_RECORDS, MAX_POLL_RECORDS, 1, 0.0) == MAX_POLL_RECORDS


def test_memory_grows_with_partitions_and_request_size():
    small, large = RequestSettings(max_bytes=2**20), RequestSettings(max_bytes=2**21)
    assert memory_bound_bytes(small, 2, 5) - memory_bound_bytes(small, 2, 0) == int(5 * SAE_TIMES)
    assert memory_bound_bytes(large, 2, 0) - memory_bound_bytes(small, 2, 0) == 2 * 4 * 2**20


def test_producers_cannot_make_lanes_without_end(monkeypatch):
    monkeypatch.setattr(lanes_module, "MAX_LANES", 2)
    partition = started(settings(), lanes=Lanes(()))
    feed(partition, [record(Chunk(f"r{k}", hook=f"h{k % 3}"), k) for k in range(6)])
    assert partition.close().cut.rejected_by_reason == {"unknown_site": 2}


def test_projections_of_many_wide_sites_stay_within_their_bytes(monkeypatch):
    one = 1_025 * MOMENT_COORDINATES * 4
    monkeypatch.setattr(requests, "PROJECTIONS_BYTES", 2 * one)
    monkeypatch.setattr(requests, "_kept", {})
    lanes = [Lane(model_id=f"m{k}", hook_name="h", model_revision="r", sae_fingerprint=NO_SAE) for k in range(4)]
    x = torch.ones(1, 1_025)
    first = requests.moment_coordinates(x, lanes[0])
    for lane in lanes:
        requests.moment_coordinates(x, lane)
    assert sum(kept.nbytes for kept in requests._kept.values()) == 2 * one
    assert torch.equal(requests.moment_coordinates(x, lanes[0]), first)  # made again from the site, not remembered
