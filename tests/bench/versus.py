"""`versus_saelens_river`: the loop that a user would write: SAELens encodes, one river ADWIN for each feature.

SAELens lives in an environment of its own (`pip install sae-lens river`); its interpreter is named by
STREAM_INTERP_BENCH_SAELENS, or this one is used if it has it. Without one, the bench is skipped with a message.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import torch

from stream_interp import sae as saes
from tests.bench.encode import window_of
from tests.bench.lanes import entry_of, firing_sae, snapshots
from tests.bench.measure import Row, seconds

D_IN, D_SAE, L0, REQUESTS, LOOP_TOKENS, ROUNDS = 768, 24_576, 60, 30, 48, 3
ENVIRONMENT = "STREAM_INTERP_BENCH_SAELENS"
_LOOP = """
import sys, time, torch
from river.drift import ADWIN
from sae_lens import SAE
sae = SAE.load_from_disk(sys.argv[1])
tokens = torch.randn(int(sys.argv[2]), sae.cfg.d_in)
detectors = [ADWIN() for _ in range(sae.cfg.d_sae)]

def loop(x):
    with torch.inference_mode():
        acts = sae.encode(x)
    for row in (acts > 0).float().tolist():
        for detector, fired in zip(detectors, row):
            detector.update(fired)

loop(tokens[:2])
began = time.perf_counter()
loop(tokens)
print(len(tokens) / (time.perf_counter() - began))
"""


def rows() -> Iterator[Row]:
    """Our windows against that loop, and what the bare product would allow, in turn."""
    python = os.environ.get(ENVIRONMENT) or (sys.executable if find_spec("sae_lens") else "")
    if not python:
        sys.stderr.write(f"versus_saelens_river: skipped, no sae-lens here; name an interpreter by {ENVIRONMENT}\n")
        return
    sae, items = firing_sae(D_IN, D_SAE, L0), snapshots(D_IN, REQUESTS)
    entry, x = entry_of(sae), torch.randn(4_096, D_IN)
    out, tokens = torch.empty(len(x), D_SAE), sum(len(s.acts) for s in items)
    triples = []
    with tempfile.TemporaryDirectory() as folder:
        c = sae.canonical
        saes.save_saelens(folder, c.W_enc, c.b_enc, c.W_dec, c.b_dec, threshold=c.threshold)
        for _ in range(ROUNDS):
            ours = tokens / seconds(lambda: window_of(entry, items))
            bare = len(x) / seconds(lambda: torch.addmm(c.b_enc, x, c.W_enc, out=out))
            triples.append((ours, bare, _loop_tokens_per_s(python, folder)))
    for name, column in (("engine", 0), ("bare float32 addmm", 1)):
        low, middle, high = statistics.quantiles([t[column] / t[2] for t in triples], n=4)
        value = statistics.median(t[column] for t in triples)
        yield Row(f"{name} {D_IN} x {D_SAE}", value, "tokens/s", middle, low, high, "SAELens encode + river ADWIN loop")
    low, middle, high = statistics.quantiles([t[0] / t[1] for t in triples], n=4)
    share = f"of what the bare product would allow, {D_IN} x {D_SAE}"
    yield Row(share, statistics.median(t[0] for t in triples), "tokens/s", middle, low, high, "that bound")


def _loop_tokens_per_s(python: str, folder: str) -> float:
    words = [python, "-c", _LOOP, folder, str(LOOP_TOKENS)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])
