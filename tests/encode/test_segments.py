"""Windows count requests by the segment that they name, however requests come in batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.lane import Lane
from stream_interp.records.window import FIT, CutRef
from tests.encode.slow_twin import IntegerSAE

D_IN, D_SAE = 5, 17


@pytest.mark.parametrize("batch", [1, 7, 40])
@pytest.mark.parametrize("shape", [{"projector_version": FIT}, {"projector_version": 3, "unit_tokens": 4}])
def test_all_requests_are_counted_those_too_short_too(batch: int, shape: dict[str, int]) -> None:
    rng = np.random.default_rng(batch)
    lane_shape = LaneShape(lane=Lane(model_id="m", hook_name="h"), massive="off", **shape)
    requests = [
        Request(
            request_id=f"{k}", acts=rng.integers(-4, 5, (rng.integers(1, 8), D_IN)).astype(np.float16), segment=name
        )
        for k, name in enumerate(rng.choice(["cards", "loans", ""], 40))
    ]
    window = OpenWindow(lane_shape, "float16", D_IN, D_SAE)
    for start in range(0, len(requests), batch):
        window.add(encode_batch(IntegerSAE(D_IN, D_SAE), [(lane_shape, r) for r in requests[start : start + batch]]))
    closed = window.close(CutRef(topic="t", partition=0, a=0, b=1), 1)
    named = Counter(request.segment for request in requests)
    assert closed.header.segments == {name: n for name, n in sorted(named.items()) if name}
    assert closed.arrays["length_histogram"].sum() == named.total()
