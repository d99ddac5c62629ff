"""Which requests of which bucket fired, against loops; in windows only once a lane is calibrated."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records import group_keys
from stream_interp.records.group_keys import BUCKETS, MOST_FEATURES, NO_GROUP, bucket_of, looked_at, stride
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef
from tests.encode.slow_twin import IntegerSAE

D_IN, D_SAE = 5, 17


def requests_of(seed: int = 0, keys: int = 6) -> list[Request]:
    rng = np.random.default_rng(seed)
    acts = [rng.integers(-4, 5, (rng.integers(1, 6), D_IN)).astype(np.float16) for _ in range(40)]
    return [
        Request(request_id=f"{k}", acts=of, group_key=f"s{rng.integers(keys)}" if k % 5 else "")
        for k, of in enumerate(acts)
    ]


def arrays_of(requests: list[Request], batch: int, **shape: int) -> dict[str, np.ndarray]:
    lane_shape = LaneShape(lane=Lane(model_id="m", hook_name="h"), massive="off", **{"projector_version": 3, **shape})
    window = OpenWindow(lane_shape, "float16", D_IN, D_SAE)
    for start in range(0, len(requests), batch):
        window.add(encode_batch(IntegerSAE(D_IN, D_SAE), [(lane_shape, r) for r in requests[start : start + batch]]))
    return window.close(CutRef(topic="t", partition=0, a=0, b=1), 1).arrays


@pytest.mark.parametrize("one_of", [1, 4])
@pytest.mark.parametrize("batch", [1, 7, 40])
def test_counts_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch, batch: int, one_of: int) -> None:
    """Requests too short for the unit count nowhere, nor those without a key."""
    monkeypatch.setattr(group_keys, "MOST_FEATURES", -(-D_SAE // one_of))
    sae, requests, n, cells = IntegerSAE(D_IN, D_SAE), requests_of(), Counter[int](), Counter[int]()
    for request in requests:
        if len(request.acts) < 2 or not request.group_key:
            continue
        bucket = bucket_of(request.group_key)
        n[bucket] += 1
        fired = ((request.acts[:2].astype(np.float32) @ sae.W_enc + sae.b_enc) > 0).any(axis=0)
        for feature in np.flatnonzero(fired):
            if feature % one_of == 0:
                cells[bucket * looked_at(D_SAE) + int(feature) // one_of] += 1
    found = arrays_of(requests, batch, unit_tokens=2)
    assert {b: c for b, c in enumerate(found["group_requests"].tolist()) if c} == n
    assert dict(zip(found["group_cells"].tolist(), found["group_fired"].tolist(), strict=True)) == cells
    assert len(n) > 3
    assert (np.diff(found["group_cells"]) > 0).all()


def test_nothing_where_no_request_has_a_key_or_the_lane_is_fitted() -> None:
    without = [Request(request_id=r.request_id, acts=r.acts) for r in requests_of()]
    for found in (arrays_of(without, 40), arrays_of(requests_of(), 40, projector_version=0)):
        assert not [name for name in found if name.startswith("group")]


def test_buckets_are_stable_even_and_of_nobody_without_a_key() -> None:
    counts = np.bincount([bucket_of(f"session-{k}") for k in range(50_000)], minlength=BUCKETS)
    assert len(counts) == BUCKETS
    assert abs(counts / counts.mean() - 1).max() < 0.35
    assert bucket_of("session-1") == 228
    assert bucket_of("") == NO_GROUP


@pytest.mark.parametrize("d_sae", [0, 1, 1_023, 1_024, 1_025, 24_576, 262_144])
def test_of_many_features_only_some_are_looked_at(d_sae: int) -> None:
    assert looked_at(d_sae) == len(range(0, d_sae, stride(d_sae))) <= MOST_FEATURES
    assert looked_at(d_sae) > min(d_sae, MOST_FEATURES) / 2 or not d_sae
