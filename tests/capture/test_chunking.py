from __future__ import annotations

import numpy as np
import pytest

from stream_interp.capture.chunking import HEADER_BYTES, split_tokens
from stream_interp.errors import UsageError
from stream_interp.records.arrays import write_tensors
from stream_interp.records.snapshot import Snapshot, decode_snapshot, encode_snapshot

RNG = np.random.default_rng(3)


def snapshot(n: int, d: int = 16, dtype: str = "float16", **arrays) -> Snapshot:
    acts = RNG.normal(size=(n, d)).astype(dtype)
    return Snapshot(
        model_id="m", hook_name="h", request_id="r", acts=acts, acts_dtype=dtype, request_tokens=n, **arrays
    )


@pytest.mark.parametrize("n", [1, 2, 61, 62, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_chunks_fit_and_join_to_the_input(n, dtype):
    whole = snapshot(
        n,
        dtype=dtype,
        acts_out=RNG.normal(size=(n, 5)).astype(dtype),
        positions=np.arange(n, dtype=np.int32),
        special_mask=np.arange(n) % 3 == 0,
    )
    max_bytes = HEADER_BYTES + 4000
    chunks = split_tokens(whole, max_bytes)
    for name in ("acts", "acts_out", "positions", "special_mask"):
        joined = np.concatenate([getattr(chunk, name) for chunk in chunks])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert [(c.chunk, c.chunks, c.request_tokens) for c in chunks] == [(k, len(chunks), n) for k in range(len(chunks))]
    for chunk in chunks:
        record = encode_snapshot(chunk, 0)
        assert len(record.value) <= max_bytes
        decoded = decode_snapshot(record.key, record.headers, record.value, max_bytes)
        np.testing.assert_array_equal(decoded.acts, chunk.acts)


def test_fewest_chunks():
    assert len(split_tokens(snapshot(100), HEADER_BYTES + 100 * 32)) == 1
    assert len(split_tokens(snapshot(101), HEADER_BYTES + 100 * 32)) == 2


def test_header_allowance_holds_for_the_largest_header():
    n = 10**6
    arrays = {
        "acts": np.zeros((n, 1), np.float16),
        "acts_out": np.zeros((n, 1), np.float16),
        "positions": np.zeros(n, np.int32),
        "special_mask": np.zeros(n, np.bool_),
    }
    assert len(write_tensors(arrays)) - sum(a.nbytes for a in arrays.values()) < HEADER_BYTES / 2


def test_one_token_too_large_says_what_to_do():
    with pytest.raises(UsageError, match=r"hook h: one token takes 4096 bytes.*max_message_bytes"):
        split_tokens(snapshot(3, d=2048), 4096)


@pytest.mark.parametrize(
    "bad",
    [
        snapshot(0),
        snapshot(4, d=0),
        snapshot(4, positions=np.arange(3, dtype=np.int32)),
        snapshot(4, special_mask=np.zeros((4, 1), np.bool_)),
        snapshot(4, acts_out=np.zeros(4, np.float16)),
    ],
)
def test_shapes_that_no_consumer_takes(bad):
    with pytest.raises(UsageError, match="expected acts"):
        split_tokens(bad, 10_000)
