"""Loading: seconds and peak memory above the imports, as a share of the parameters in the dtype asked for.

Each row in a process of its own: fingerprint and finite check included, the layout's tensors random.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.bench.measure import Row

D_IN, MEGABYTES = 1_024, 2_000
LAYOUTS = ("saelens float32", "saelens bfloat16", "sparsify float32", "llama_scope bfloat16")
# layout, dtype asked for: as stored, widened, narrowed; turned in the file; turned and folded
ROWS = (
    ("saelens float32", "float32"),
    ("saelens bfloat16", "bfloat16"),
    ("saelens bfloat16", "float32"),
    ("saelens float32", "bfloat16"),
    ("sparsify float32", "float32"),
    ("llama_scope bfloat16", "bfloat16"),
)
_CHILD = """
import json, sys, time
from stream_interp import sae
sae.load(sys.argv[3], dtype=sys.argv[2])  # a small one first: what torch allocates once is no part of loading

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

open("/proc/self/clear_refs", "w").write("5")
before, began = peak(), time.perf_counter()
loaded = sae.load(sys.argv[1], dtype=sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - began, "ratio": (peak() - before) / loaded.memory_bytes}))
"""


def write(folder: Path, layout: str, megabytes: float) -> None:
    """A checkpoint whose parameters take `megabytes` in the dtype of the layout."""
    family, _, name = layout.partition(" ")
    dtype: torch.dtype = getattr(torch, name)
    d_sae = max(2, round(megabytes * 1e6 / dtype.itemsize / 2 / D_IN))
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    folder.mkdir(parents=True)
    if family == "saelens":
        tensors = {"W_enc": random(D_IN, d_sae), "W_dec": random(d_sae, D_IN), "threshold": random(d_sae).abs()}
        save_file(tensors | {"b_enc": random(d_sae), "b_dec": random(D_IN)}, folder / "sae_weights.safetensors")
        cfg = {"architecture": "jumprelu", "apply_b_dec_to_input": True, "normalize_activations": "none"}
        _json(folder / "cfg.json", d_in=D_IN, d_sae=d_sae, metadata={"sae_lens_version": "6.54.12"}, **cfg)
    elif family == "sparsify":
        tensors = {"encoder.weight": random(d_sae, D_IN), "W_dec": random(d_sae, D_IN)}
        save_file(tensors | {"encoder.bias": random(d_sae), "b_dec": random(D_IN)}, folder / "sae.safetensors")
        _json(folder / "cfg.json", d_in=D_IN, num_latents=d_sae, k=2, activation="topk")
    else:
        (folder / "checkpoints").mkdir()
        tensors = {"encoder.weight": random(d_sae, D_IN), "decoder.weight": random(D_IN, d_sae)}
        tensors |= {"encoder.bias": random(d_sae), "decoder.bias": random(D_IN)}
        save_file(tensors, folder / "checkpoints/final.safetensors")
        norms = {"in": 17.0}
        _json(folder / "hyperparams.json", d_model=D_IN, d_sae=d_sae, jump_relu_threshold=1.0,
              dataset_average_activation_norm=norms)  # fmt: skip


def measure(folder: Path, dtype: str, small: Path) -> dict[str, float]:
    """`seconds` and `ratio` of loading it in a fresh process."""
    words = [sys.executable, "-c", _CHILD, str(folder), dtype, str(small)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(values))


def rows(megabytes: float = MEGABYTES) -> Iterator[Row]:
    """A row for each layout and dtype: seconds, and peak memory as a ratio."""
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name) / "big", layout, megabytes)
            write(Path(name) / "small", layout, 1)
            for stored, dtype in ROWS:
                if stored == layout:
                    figures = measure(Path(name) / "big", dtype, Path(name) / "small")
                    peak = figures["ratio"]
                    what = f"load {megabytes:.0f} MB, {stored} as {dtype}: time, and peak memory"
                    yield Row(what, figures["seconds"], "s", peak, peak, peak, "the parameters' bytes")
