"""Loading in blocks equals loading at once, and takes little more memory than its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from stream_interp import sae
from stream_interp.sae import tensors
from tests.bench import layer
from tests.bench.load import ROWS, measure, write

READABLE = [
    path.parent
    for path in sorted(Path(__file__).parent.glob("golden/*/meta.json"))
    if not (path.parent / json.loads(path.read_text())["checkpoint"]).is_file()
    and not any((path.parent / "ckpt").rglob("ae.pt"))
]


@pytest.mark.parametrize("folder", READABLE, ids=lambda folder: folder.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_change_nothing(folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    whole = sae.load(folder / meta["checkpoint"], dtype=dtype, **meta["load"])
    monkeypatch.setattr(tensors, "BLOCK_ELEMENTS", 700)
    monkeypatch.setattr(tensors, "GATHER_BYTES", 1_000)
    parts = sae.load(folder / meta["checkpoint"], dtype=dtype, **meta["load"])
    assert parts.fingerprint == whole.fingerprint
    for one, other in zip(parts.canonical.tensors, whole.canonical.tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6 if dtype == "float32" else 1e-2, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_at_load(tmp_path: Path) -> None:
    """At this size 0.3 are 77 MB of blocks; `python -m tests.bench.load` has the figures of 2 GB."""
    for stored, dtype in ROWS:
        if stored.startswith("llama_scope"):
            continue  # turned and folded: its passes hold some 200 MB, whatever the size
        folder = tmp_path / stored
        if not folder.exists():
            write(folder / "big", stored, 256)
            write(folder / "small", stored, 1)
        assert measure(folder / "big", dtype, folder / "small")["ratio"] <= 1.3, (stored, dtype)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and needs files with holes")
def test_one_layer_of_a_set_larger_than_memory(tmp_path: Path) -> None:
    """The sizes of a published set for a model 2,304 wide."""
    n_bytes = layer.write(tmp_path / "big", 2_304, 16_384, layer.memory_bytes())
    assert n_bytes > layer.memory_bytes()
    layer.write(tmp_path / "small", 8, 16, 0)
    figures = layer.measure(tmp_path / "big", tmp_path / "small", 2_304)
    assert figures["fired"] == [3, 16_383]
    assert float(str(figures["ratio"])) <= 1.2
