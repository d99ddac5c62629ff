"""Whatever a checkpoint's files hold: an SAE or SAELoadError, never another error, never memory for what is claimed."""

from __future__ import annotations

import json
import struct
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from stream_interp import sae
from stream_interp.errors import SAELoadError

from .conftest import config, weights

GOOD_WEIGHTS = save(weights())
GOOD_CONFIG = json.dumps(config()).encode()
PEAK_BYTES = 4_000_000  # of Python's allocations; the files here have about 2 kB

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
sizes = st.integers(-1, 2**65) | st.sampled_from([0, 8, 24, 192, 768])
entries = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "F64", "I64", "F8_E4M3", ""]), "shape": st.lists(sizes, max_size=3)},
    optional={"data_offsets": st.lists(sizes, min_size=1, max_size=3), "more": json_values},
)
names = st.sampled_from(["W_enc", "W_dec", "b_enc", "b_dec", "threshold", "scaling_factor", "__metadata__", "other"])


def _loads_or_refuses(config_bytes: bytes, weight_bytes: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "cfg.json").write_bytes(config_bytes)
        (Path(name) / "sae_weights.safetensors").write_bytes(weight_bytes)
        tracemalloc.start()
        try:
            with suppress(SAELoadError):
                assert sae.load(name).memory_bytes <= 10 * len(GOOD_WEIGHTS)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < PEAK_BYTES


@given(st.integers(0, len(GOOD_WEIGHTS) - 1), st.binary(max_size=16), st.integers(0, len(GOOD_WEIGHTS)))
@settings(max_examples=150, deadline=2_000)
def test_mutated_weights(at: int, patch: bytes, length: int) -> None:
    mutated = GOOD_WEIGHTS[:at] + patch + GOOD_WEIGHTS[at + len(patch) :]
    _loads_or_refuses(GOOD_CONFIG, mutated)
    _loads_or_refuses(GOOD_CONFIG, mutated[:length])


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
@settings(max_examples=100, deadline=2_000)
def test_any_header_length(length: int, rest: bytes) -> None:
    _loads_or_refuses(GOOD_CONFIG, struct.pack("<Q", length) + rest)
    _loads_or_refuses(GOOD_CONFIG, struct.pack("<Q", len(rest)) + rest)


@given(st.dictionaries(names, entries | json_values, max_size=6), st.integers(0, 3_000))
@settings(max_examples=150, deadline=2_000)
def test_any_header(header: dict[str, Any], data_bytes: int) -> None:
    encoded = json.dumps(header).encode()
    _loads_or_refuses(GOOD_CONFIG, struct.pack("<Q", len(encoded)) + encoded + bytes(data_bytes))


@given(st.dictionaries(st.sampled_from(sorted(config())), json_values | sizes, min_size=1, max_size=3))
@settings(max_examples=150, deadline=2_000)
def test_any_config(changes: dict[str, Any]) -> None:
    _loads_or_refuses(json.dumps(config() | changes).encode(), GOOD_WEIGHTS)


@given(st.integers(0, len(GOOD_CONFIG) - 1), st.binary(max_size=8))
@settings(max_examples=100, deadline=2_000)
def test_mutated_config(at: int, patch: bytes) -> None:
    _loads_or_refuses(GOOD_CONFIG[:at] + patch + GOOD_CONFIG[at + len(patch) :], GOOD_WEIGHTS)
