"""One layer of a cross-layer transcoder that is larger than the machine's memory: peak memory above the imports.

    python -m tests.bench.layer [D_IN D_SAE]

The files are sparse: they take no room on disk, and are read as zeros but for a few rows of the layer's encoder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

LAYER = 1
_CHILD = """
import json, sys, time
import torch
from stream_interp import sae
layer, d_in = int(sys.argv[3]), int(sys.argv[4])
small = sae.load(sys.argv[2])  # what torch allocates once is no part of loading
small.layer(layer).encode(torch.ones(8, small.d_in))

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

open("/proc/self/clear_refs", "w").write("5")
before, began = peak(), time.perf_counter()
loaded = sae.load(sys.argv[1])
encoder = loaded.layer(layer)
acts = encoder.encode(torch.ones(8, d_in))
print(json.dumps({
    "seconds": time.perf_counter() - began, "encoder_bytes": encoder.memory_bytes,
    "ratio": (peak() - before) / encoder.memory_bytes, "fired": acts[0].nonzero().squeeze(1).tolist(),
}))
"""


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(folder: Path, d_in: int, d_sae: int, larger_than_bytes: int) -> int:
    """A circuit-tracer CLT of so many layers that it is larger. Features 3 and d_sae - 1 fire. Returns its bytes."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model_kind: cross_layer_transcoder\n")
    n_layers = 2
    while (written := 4 * d_sae * d_in * (n_layers + n_layers * (n_layers + 1) // 2)) <= larger_than_bytes:
        n_layers += 1
    for i in range(n_layers):
        encoder = {f"W_enc_{i}": [d_sae, d_in], f"b_enc_{i}": [d_sae], f"b_dec_{i}": [d_in]}
        start = _sparse(folder / f"W_enc_{i}.safetensors", encoder)
        _sparse(folder / f"W_dec_{i}.safetensors", {f"W_dec_{i}": [d_sae, n_layers - i, d_in]})
        with (folder / f"W_enc_{i}.safetensors").open("r+b") as file:
            for feature in (3, d_sae - 1):
                file.seek(start + 4 * d_in * feature)
                file.write(torch.ones(d_in).numpy().tobytes())
    return written


def _sparse(path: Path, shapes: dict[str, list[int]]) -> int:
    """Float32 tensors of zeros. Returns where they begin."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return 8 + len(text)


def measure(folder: Path, small: Path, d_in: int) -> dict[str, object]:
    """`seconds`, `ratio` and `fired` of loading the set and encoding one layer, in a fresh process."""
    words = [sys.executable, "-c", _CHILD, str(folder), str(small), str(LAYER), str(d_in)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


def main(d_in: int = 2_048, d_sae: int = 65_536) -> None:
    """Prints one row."""
    with tempfile.TemporaryDirectory() as name:
        n_bytes = write(Path(name) / "big", d_in, d_sae, memory_bytes())
        write(Path(name) / "small", 8, 16, 0)
        figures = measure(Path(name) / "big", Path(name) / "small", d_in)
        print(f"set of {n_bytes / 1e9:.0f} GB, memory {memory_bytes() / 1e9:.0f} GB: {figures}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
