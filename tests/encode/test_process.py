"""ENCODE on a real Kafka: crashes, restarts, three partitions, three lanes, chunks, bad input."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import numpy as np
from msgspec import structs
from safetensors.numpy import load, load_file

from stream_interp.detect.learning import absorb, make_projector
from stream_interp.records.control import encode_control, make_control, read_projector
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.settings import UnitSettings
from tests.encode.bad_snapshots import bad_snapshots
from tests.encode.workers import D_IN, D_SAE, Bench, heartbeats
from tests.workers import until

HOOKS = ("layer.1", "layer.2", "layer.3")


def snapshots(n: int, seed: int, name: str = "r"):
    """Integer activations in 1 to 4 chunks, some tokens special; the chunks of neighbours interleave."""
    rng = np.random.default_rng(seed)
    pieces = []
    for i in range(n):
        tokens = int(rng.integers(4, 13))
        acts = rng.integers(-4, 5, (tokens, D_IN)).astype(np.float16)
        special = np.arange(tokens) == 0
        parts = np.array_split(np.arange(tokens), rng.integers(1, 5))
        for hook in HOOKS:
            for k, part in enumerate(parts):
                piece = Snapshot(
                    model_id="m", hook_name=hook, request_id=f"{name}{i}", acts=acts[part], acts_dtype="float16",
                    special_mask=special[part], chunk=k, chunks=len(parts), request_tokens=tokens,
                )  # fmt: skip
                pieces.append((i + 4 * rng.random(), piece))
    now_ms = time.time_ns() // 1_000_000
    return [encode_snapshot(piece, now_ms) for _, piece in sorted(pieces, key=lambda p: p[0])]


def recomputed(bench: Bench) -> dict[str, dict[str, object]]:
    """Per hook, from the input topic, token by token and feature by feature, with the weights of the file."""
    weights = load_file(bench.folder / "sae" / "sae_weights.safetensors")
    requests: dict[tuple[str, str], dict[int, dict[str, np.ndarray]]] = defaultdict(dict)
    for message in bench.read("interp.activations"):
        headers = dict(message.headers())
        key = headers["ce_hookname"].decode(), headers["ce_requestid"].decode()
        requests[key][int(headers["ce_chunk"])] = load(message.value())
    sums = {h: {"requests": 0, "tokens": 0, "fired": Counter(), "tokens_fired": Counter(), "act_sum": Counter()}
            for h in HOOKS}  # fmt: skip
    for (hook, _), parts in requests.items():
        total, fired = sums[hook], set()
        total["requests"] += 1
        for k in sorted(parts):
            for x, special in zip(parts[k]["acts"], parts[k]["special_mask"], strict=True):
                if special:
                    continue
                total["tokens"] += 1
                for f in range(D_SAE):
                    value = sum(int(x[j]) * int(weights["W_enc"][j, f]) for j in range(D_IN)) + int(weights["b_enc"][f])
                    if value > 0:
                        fired.add(f)
                        total["tokens_fired"][f] += 1
                        total["act_sum"][f] += value
        total["fired"].update(fired)
    return sums


def summed(windows) -> dict[str, dict[str, object]]:
    sums = {h: {"requests": 0, "tokens": 0, "fired": Counter(), "tokens_fired": Counter(), "act_sum": Counter()}
            for h in HOOKS}  # fmt: skip
    for window in windows:
        total, a = sums[window.header.lane.hook_name], window.arrays
        total["requests"] += window.header.requests
        total["tokens"] += window.header.tokens
        for name, array in (("fired", "requests_fired"), ("tokens_fired", "tokens_fired"), ("act_sum", "act_sum")):
            total[name].update(dict(zip(a["feature_ids"].tolist(), map(int, a[array]), strict=True)))
    return sums


def check_tiling(bench: Bench, windows) -> None:
    records = Counter((m.partition(), m.offset()) for m in bench.read("interp.activations"))
    ends = {p: max(o for q, o in records if q == p) + 1 for p, _ in records}
    cuts = bench.cuts()
    assert set(cuts) == set(ends)
    for partition, tiles in cuts.items():
        assert tiles[0].a == 0
        assert tiles[-1].b == ends[partition]
        pending = 0
        for before, cut in zip([None, *tiles], tiles, strict=False):
            assert before is None or before.b == cut.a
            assert cut.records == sum(cut.a <= o < cut.b for p, o in records if p == partition)
            left_out = sum(cut.not_counted.values())
            assert pending + cut.records == cut.counted_records + cut.pending_records + left_out
            pending = cut.pending_records
    of_cuts = {(p, c.a, c.b, lane_id): (n.requests, n.tokens)
               for p, tiles in cuts.items() for c in tiles for lane_id, n in c.lanes.items()}  # fmt: skip
    of_windows = {(w.header.cut.partition, w.header.cut.a, w.header.cut.b, w.header.lane.lane_id):
                  (w.header.requests, w.header.tokens) for w in windows}  # fmt: skip
    assert len(of_windows) == len(windows)
    assert of_windows == of_cuts


def test_cuts_tile_and_sums_equal_the_input_over_sigterm_and_kill(bench: Bench):
    bench.apply_topics(3)
    n = 0

    def produce(requests: int, seed: int) -> None:
        nonlocal n
        envelopes = snapshots(requests, seed, name=f"s{seed}-")
        n += len(envelopes)
        bench.produce("interp.activations", envelopes)

    with bench.worker("1") as first, bench.worker("2") as second:
        produce(300, seed=1)
        until(lambda: "reads from" in first.text and bench.covered() > 0, first)
        assert first.terminate() == 0, first.text
        produce(300, seed=2)
        until(lambda: bench.covered() > n // 2, second)
        produce(300, seed=3)
        second.kill()
    produce(200, seed=4)
    with bench.worker("2") as third:
        until(lambda: bench.covered() > n // 2, third)
        with bench.worker("1") as fourth:  # a rebalance while it works
            until(lambda: "reads from" in fourth.text, fourth)  # else the third may be through before it has started
            produce(300, seed=5)
            until(lambda: bench.covered() >= n, third)
            assert fourth.terminate() == 0, fourth.text
        assert third.terminate() == 0, third.text
    windows = bench.windows()
    check_tiling(bench, windows)
    assert summed(windows) == recomputed(bench)
    assert sum(c.incomplete_requests for tiles in bench.cuts().values() for c in tiles) == 0
    assert {h["kind"] for h in heartbeats(bench)} == {"encode"}


def test_one_request_a_window(bench: Bench):
    bench.apply_topics(1)
    envelopes = [e for e in snapshots(40, seed=6) if b"layer.1" in dict(e.headers)["ce_hookname"]]
    bench.produce("interp.activations", envelopes)
    one = {"window.requests": "1", "window.min_age_s": "0", "window.max_age_s": "0", "sae.dtype": "bfloat16"}
    with bench.worker(**one) as worker:
        until(lambda: bench.covered() >= len(envelopes), worker)
        assert worker.terminate() == 0
    windows = bench.windows()
    assert [w.header.requests for w in windows] == [1] * 40
    assert {(w.header.proposed_dtype, w.header.compute_dtype) for w in windows} == {("bfloat16", "float32")}


def test_projectors_bind_lanes_and_a_lane_bound_to_what_is_not_known_here_is_left_out(bench: Bench):
    bench.apply_topics(1)
    envelopes = snapshots(20, seed=11)
    bench.produce("interp.activations", envelopes)
    with bench.worker() as worker:
        until(lambda: bench.covered() >= len(envelopes), worker)
        assert worker.terminate() == 0
    fits = {w.header.lane.hook_name: w for w in bench.windows()}
    for hook, dtype in zip(HOOKS, ("bfloat16", "float8"), strict=False):
        fit = fits[hook]
        header, arrays = read_projector(
            make_projector(absorb(None, fit, at_ms=0, offset=0), fit.header.lane, 5, UnitSettings())
        )
        bound = make_control("projector", structs.replace(header, compute_dtype=dtype), arrays, "test", "")
        bench.produce("interp.control", encode_control(bound))
    more = snapshots(20, seed=12, name="s")
    bench.produce("interp.activations", more)
    with bench.worker() as worker:
        until(lambda: bench.covered() >= len(envelopes) + len(more), worker)
        assert worker.terminate() == 0
        assert worker.text.count("its requests are not encoded") == 1
    later = [w.header for w in bench.windows() if w.header.projector_version == 5]
    assert {(h.lane.hook_name, h.compute_dtype, h.requests > 0) for h in later} == {
        (HOOKS[0], "bfloat16", True), (HOOKS[1], "float8", False),
    }  # fmt: skip
    left_out = sum(h.not_counted.get("dtype_unavailable", 0) for h in later if h.lane.hook_name == HOOKS[1])
    assert left_out == 20
    check_tiling(bench, bench.windows())


def test_more_incomplete_requests_than_the_metadata_holds_survive_a_kill(bench: Bench):
    bench.apply_topics(1)
    acts = np.ones((1, D_IN), np.float16)
    now_ms = time.time_ns() // 1_000_000

    def half(i: int, k: int):
        return encode_snapshot(
            Snapshot(model_id="m", hook_name=HOOKS[0], request_id=f"r{i}", acts=acts, acts_dtype="float16", chunk=k,
                     chunks=2, request_tokens=2, special_mask=np.zeros(1, bool)), now_ms,
        )  # fmt: skip

    pieces = [half(i, 0) for i in range(150)]
    whole = [e for e in snapshots(40, seed=7, name="w") if b"layer.1" in dict(e.headers)["ce_hookname"]]
    bench.produce("interp.activations", [*pieces, *whole])
    with bench.worker() as worker:
        until(lambda: bench.covered() >= len(pieces) + len(whole), worker)
        worker.kill()
    bench.produce("interp.activations", [half(i, 1) for i in range(150)])
    with bench.worker() as worker:
        until(lambda: bench.covered() >= 2 * len(pieces) + len(whole), worker)
        assert worker.terminate() == 0
    windows = bench.windows()
    check_tiling(bench, windows)
    assert summed(windows) == recomputed(bench)
    assert sum(w.header.requests for w in windows) == 150 + 40


def test_bad_input_is_set_aside_and_all_good_input_counts(bench: Bench):
    bench.apply_topics(1)
    rng = np.random.default_rng(8)
    good = [encode_snapshot(Snapshot(model_id="m", hook_name=HOOKS[0], request_id=f"good{i}", acts_dtype="float16",
                                     acts=rng.integers(-4, 5, (3, D_IN)).astype(np.float16), request_tokens=3), 0)
            for i in range(1_000)]  # fmt: skip
    bad = bad_snapshots(1_000, d_in=D_IN)
    assert len({reason for _, reason in bad}) >= 12
    mixed = [*good, *(envelope for envelope, _ in bad)]
    bench.produce("interp.activations", [mixed[i] for i in rng.permutation(len(mixed))])
    with bench.worker(**{"request.max_bytes": "10000"}) as worker:
        until(lambda: bench.covered() >= 2_000, worker)
        assert worker.process.poll() is None
        assert worker.terminate() == 0
    windows = bench.windows()
    assert sum(w.header.requests for w in windows) == 1_000
    letters = {dict(m.headers())["ce_reason"].decode(): 0 for m in bench.read("interp.dlq")}
    for m in bench.read("interp.dlq"):
        letters[dict(m.headers())["ce_reason"].decode()] += 1
        assert b'"value_base64":null' in m.value()
    assert letters == Counter(reason for _, reason in bad)
    rejected = sum((Counter(c.rejected_by_reason) for tiles in bench.cuts().values() for c in tiles), Counter())
    assert rejected == letters


def test_nothing_but_bad_input_stops_the_worker_with_the_reason(bench: Bench):
    bench.apply_topics(1)
    bench.produce("interp.activations", [envelope for envelope, _ in bad_snapshots(1_500, d_in=D_IN)])
    with bench.worker() as worker:
        assert worker.process.wait(60) == 1
        assert "dlq.max_rate" in worker.text
        assert "Traceback" not in worker.text


def test_missing_topics_are_named(bench: Bench):
    with bench.worker() as worker:
        assert worker.process.wait(60) == 2
        assert "stream-interp topics apply" in worker.text
