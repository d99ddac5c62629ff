"""`make bench`: every performance claim as a ratio of two things measured in turn in one run, median and spread.

Absolute times depend on the machine and are shown beside; only the ratios are claims.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from river.drift import ADWIN

from stream_interp.detect import armed
from stream_interp.drift import esr
from stream_interp.encode.batching import add_statistics
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.examples import ExampleRule, Turns
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.outgoing import records_of
from stream_interp.encode.partition import InputPartition
from stream_interp.encode.position import Position
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.consumed import Consumed
from stream_interp.records.lane import Lane
from stream_interp.records.snapshot import Snapshot, decode_snapshot, encode_snapshot
from stream_interp.settings import Settings, SiteSettings
from tests.bench.checkpoints import random_sae

ROUNDS = 9
ACTIVATIONS = "interp.activations"
D_IN, D_SAE, REQUESTS, TOKENS = 576, 4_608, 64, 24
Case = tuple[str, Callable[[], Any], Callable[[], Any]]


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    rows = [
        _compare(*case)
        for case in (
            *_encode_cases(arguments.device),
            _examples_case(arguments.device),
            _decode_case(),
            *_tick_cases(),
        )
    ]
    if arguments.json:
        sys.stdout.write(json.dumps({"device": arguments.device, "cases": rows}) + "\n")
        return
    for row in rows:
        spread = f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}"
        times = f"{row['ours_ms']:.3f} ms against {row['other_ms']:.3f} ms"
        line = f"{row['case']:<72} ratio {row['ratio']:.2f} ({spread})  {times}"
        sys.stdout.write(line + "\n")


def _compare(name: str, ours: Callable[[], Any], other: Callable[[], Any]) -> dict[str, Any]:
    """Both in turn, ROUNDS times: the median of the ratios, with quartiles."""
    ours(), other()
    pairs = [(_seconds(ours), _seconds(other)) for _ in range(ROUNDS)]
    low, ratio, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    ours_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "case": name, "ratio": ratio, "ratio_low": low, "ratio_high": high,
        "ours_ms": ours_s * 1e3, "other_ms": other_s * 1e3,
    }  # fmt: skip


def _seconds(run: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _encode_cases(device: str) -> list[Case]:
    sae, W_enc = random_sae(D_IN, D_SAE, device)
    rng = np.random.default_rng(0)
    acts = rng.standard_normal((REQUESTS, TOKENS, D_IN)).astype(np.float16)
    x = torch.from_numpy(acts.reshape(-1, D_IN)).to(device).float()
    shape = LaneShape(lane=Lane(model_id="m", hook_name="h", sae_fingerprint=sae.fingerprint))
    items = [(shape, Request(request_id=str(i), acts=a)) for i, a in enumerate(acts)]
    stats = encode_batch(sae, items, device)

    def window() -> None:
        OpenWindow(shape, "float16", D_IN, D_SAE).add(stats)

    def gemm() -> torch.Tensor:
        return x @ W_enc

    def statistics_of_all() -> None:
        encode_batch(sae, items, device)

    return [
        (f"SAE encode of {len(x)} tokens, against the bare x @ W_enc", lambda: sae.encode(x), gemm),
        (
            f"all statistics of {REQUESTS} requests, against the bare x @ W_enc",
            lambda: encode_batch(sae, items, device),
            gemm,
        ),
        (f"window sums of {REQUESTS} fit requests, against the bare x @ W_enc", window, gemm),
    ]


def _examples_case(device: str) -> Case:
    sae, _ = random_sae(D_IN, D_SAE, device)
    rng = np.random.default_rng(0)
    records = []
    for k in range(REQUESTS):
        acts = rng.standard_normal((TOKENS, D_IN)).astype(np.float16)
        snapshot = Snapshot(
            model_id="m", hook_name="h", request_id=f"request-{k}", acts=acts, acts_dtype="float16",
            request_tokens=TOKENS,
        )  # fmt: skip
        envelope = encode_snapshot(snapshot, 0)
        records.append(Consumed(ACTIVATIONS, 0, k, 0, envelope.key, envelope.headers, envelope.value))

    def cut_of(rule: ExampleRule | None) -> Callable[[], None]:
        lanes = Lanes([Site(SiteSettings(), sae, D_IN, device, 0, rule)])

        def cut() -> None:
            partition = InputPartition(ACTIVATIONS, 0, lanes, Settings(), Position(b=0), 0, 0.0)
            for record in records:
                partition.take(record, 0.0)
            closed = partition.close()
            work, closed.cut.work = closed.cut.work, []
            add_statistics(work, encode_batch(sae, [(w.entry.shape, w.request) for w in work], device))
            records_of(closed, 0)

        return cut

    hashed = ExampleRule(64, b"0123456789abcdef", Turns())
    name = f"a whole cut of {REQUESTS} requests with hashed examples of 64 features, against the same without"
    return name, cut_of(hashed), cut_of(None)


def _decode_case() -> Case:
    acts = np.random.default_rng(0).standard_normal((TOKENS, D_IN)).astype(np.float16)
    snapshot = Snapshot(
        model_id="m", hook_name="h", request_id="r", acts=acts, acts_dtype="float16", request_tokens=TOKENS
    )
    envelope = encode_snapshot(snapshot, 0)
    raw = envelope.value or b""

    def decode() -> None:
        for _ in range(100):
            decode_snapshot(envelope.key, envelope.headers, raw, 1 << 20)

    def copy() -> None:
        for _ in range(100):
            np.frombuffer(raw, np.uint8).copy()

    return "decoding and checking 100 snapshots, against copying their bytes", decode, copy


def _tick_cases() -> list[Case]:
    streams = 65_536
    rng = np.random.default_rng(0)
    p = rng.uniform(0.001, 0.3, streams)
    state = {direction: np.zeros((len(esr.ODDS_RATIOS), streams)) for direction in armed.DIRECTIONS}
    norm = {direction: esr.log_normaliser(p, direction) for direction in armed.DIRECTIONS}
    fired = np.flatnonzero(rng.random(streams) < p)
    x = np.ones(len(fired))
    detectors = [ADWIN() for _ in range(512)]  # a Python object a stream: 65,536 of them would take minutes
    row = (rng.random(len(detectors)) < 0.1).astype(float).tolist()

    def tick() -> None:
        for direction in armed.DIRECTIONS:
            lam = esr.log_odds(direction)
            state[direction] = esr.update(state[direction], 1e-5, 1, norm[direction], lam, fired, x)

    def river_loop() -> None:
        for _ in range(streams // len(detectors)):
            for detector, value in zip(detectors, row, strict=True):
                detector.update(value)

    def one_pass() -> None:
        for direction in armed.DIRECTIONS:
            np.multiply(state[direction], 1.0)

    return [
        (
            f"one e-SR tick of {streams} features, both directions, against river's ADWIN on as many streams",
            tick,
            river_loop,
        ),
        ("the same tick, against one read and write of its own state", tick, one_pass),
    ]


if __name__ == "__main__":
    main()
