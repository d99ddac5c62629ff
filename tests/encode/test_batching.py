"""Which waiting requests are encoded when, in batches of what size; and that nothing of it changes a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stream_interp.encode import batching
from stream_interp.encode.batching import Batches, add_statistics
from stream_interp.encode.encoder import begin_batch, encode_batch
from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.open_cut import OpenCut, Work
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef
from stream_interp.sae.blocks import BLOCK_TOKENS
from stream_interp.sae.firings import TooManyFirings
from stream_interp.settings import WindowSettings
from tests.encode.slow_twin import IntegerSAE

SAE = IntegerSAE(5, 17)
TOKENS = 8


class Encoded:
    """What `Batches` was given, batch after batch."""

    def __init__(self) -> None:
        self.batches: list[list[Work]] = []

    def __call__(self, sae, batch, at_most, beside):
        end_encoding = begin_batch(sae, [(w.entry.shape, w.request) for w in batch], None, beside)

        def end():
            stats = end_encoding()
            if at_most is not None and len(stats.firings.feature) > at_most:
                raise TooManyFirings
            self.batches.append(batch)
            add_statistics(batch, stats)
            return stats

        return end


def entry(hook: str, sae=SAE) -> LaneEntry:
    return LaneEntry(LaneShape(lane=Lane(model_id="m", hook_name=hook), massive="off"), sae, 5, 5)


def cut_of(windows: list[tuple[LaneEntry, OpenWindow]], requests: int, seed: int = 0) -> OpenCut:
    """Requests of the windows in turn."""
    rng, cut = np.random.default_rng(seed), OpenCut("t", 0, 0, WindowSettings())
    for k in range(requests):
        lane, window = windows[k % len(windows)]
        acts = rng.integers(-4, 5, (TOKENS, 5)).astype(np.float16)
        cut.work.append(Work(window, lane, Request(request_id=f"{seed}-{k}", acts=acts)))
    return cut


def window_of(lane: LaneEntry) -> tuple[LaneEntry, OpenWindow]:
    return lane, OpenWindow(lane.shape, "float16", 5, 17)


def test_open_work_waits_until_it_fills_a_block_and_closed_work_never_does():
    encoded = Encoded()
    batches, windows = Batches(encoded), [window_of(entry("a"))]
    small = cut_of(windows, BLOCK_TOKENS // TOKENS - 1)
    batches.work_off([], [small])
    assert (len(encoded.batches), len(small.work)) == (0, BLOCK_TOKENS // TOKENS - 1)
    other = cut_of([window_of(entry("b"))], 1)
    batches.work_off([], [small, other])  # two lanes of one SAE fill it together
    assert [len(b) for b in encoded.batches] == [BLOCK_TOKENS // TOKENS]
    assert not small.work
    assert not other.work
    closed, waits = cut_of(windows, 1), cut_of([window_of(entry("c", IntegerSAE(5, 17, seed=1)))], 1)
    waits.work[0].entry.sae.fingerprint = "e" * 64
    batches.work_off([closed], [waits])
    assert [len(b) for b in encoded.batches[1:]] == [1]
    assert (len(closed.work), len(waits.work)) == (0, 1)


def test_a_batch_is_of_one_way_and_each_way_has_its_own_count_of_firings(monkeypatch):
    encoded, exact = Encoded(), entry("a")
    half = replace(exact, shape=replace(exact.shape, compute_dtype="bfloat16"))
    windows = [window_of(exact), window_of(half), window_of(entry("b"))]
    batches = Batches(encoded)
    batches.work_off([cut_of(windows, 30)], [])
    found = [{w.entry.shape.compute_dtype for w in batch} for batch in encoded.batches]
    assert found == [{"float32"}, {"bfloat16"}]
    assert [len(batch) for batch in encoded.batches] == [20, 10]
    limit = SAE.d_sae * TOKENS * 4
    monkeypatch.setattr(batching, "MAX_FIRINGS", limit)
    fresh = Batches(encoded)
    fresh.work_off([cut_of(windows[:1], 40)], [])
    done = len(encoded.batches)
    fresh.work_off([cut_of(windows[1:2], 40)], [])
    assert len(encoded.batches[done]) == 4  # nothing is known of this way yet


def test_a_window_is_one_run_of_each_batch_in_log_order():
    encoded, windows = Encoded(), [window_of(entry(name)) for name in "abc"]
    Batches(encoded).work_off([cut_of(windows, 60)], [])
    (batch,) = encoded.batches
    runs = [w.window for k, w in enumerate(batch) if not k or w.window is not batch[k - 1].window]
    assert len(runs) == 3
    for _, window in windows:
        own = [int(w.request.request_id.split("-")[1]) for w in batch if w.window is window]
        assert own == sorted(own)


@pytest.mark.parametrize("limit", [1, 700, 10**6])
def test_batches_are_bounded_in_bytes_and_change_no_window(monkeypatch, limit):
    monkeypatch.setattr(batching, "BATCH_BYTES", limit)
    encoded, lanes = Encoded(), [entry(name) for name in "ab"]
    windows, expected = [window_of(lane) for lane in lanes], [window_of(lane) for lane in lanes]
    Batches(encoded).work_off([cut_of(windows, 50)], [])
    assert all(len(b) == 1 or sum(w.request.acts.nbytes for w in b) <= limit for b in encoded.batches)
    for work in cut_of(expected, 50).work:
        add_statistics([work], encode_batch(SAE, [(work.entry.shape, work.request)]))
    ref = CutRef(topic="t", partition=0, a=0, b=1)
    for (_, found), (_, slow) in zip(windows, expected, strict=True):
        one, other = found.close(ref, 1), slow.close(ref, 1)
        assert one.header == other.header
        for name in set(other.arrays) - {"fit_scatter"}:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name], err_msg=name)


def test_an_sae_that_suddenly_fires_everywhere_gets_small_batches(monkeypatch):
    limit = SAE.d_sae * TOKENS * 4
    monkeypatch.setattr(batching, "MAX_FIRINGS", limit)
    encoded, lane = Encoded(), window_of(entry("a"))
    batches = Batches(encoded)
    batches.work_off([cut_of([lane], 40)], [])
    assert len(encoded.batches[0]) == 4  # nothing is known of it: it may fire everywhere
    assert max(map(len, encoded.batches)) > 4  # it does not
    quiet, loud = OpenCut("t", 0, 0, WindowSettings()), OpenCut("t", 0, 0, WindowSettings())
    bias = torch.from_numpy(SAE.b_enc)
    for k in range(60):
        for cut, acts in ((quiet, np.zeros((TOKENS, 5))), (loud, np.full((TOKENS, 5), 50.0))):
            cut.work.append(Work(lane[1], lane[0], Request(request_id=str(k), acts=acts.astype(np.float16))))
    assert not (bias > 0).any()
    batches.work_off([quiet], [])
    done = len(encoded.batches)
    batches.work_off([loud], [])
    later = encoded.batches[done:]
    assert [w.request.request_id for b in later for w in b] == [str(k) for k in range(60)]  # each once, in order
    assert all(len(b) == 1 or _firings(b) <= limit for b in later)


def _firings(batch: list[Work]) -> int:
    return sum(len(SAE.firings(torch.from_numpy(w.request.acts).float()).token) for w in batch)


def test_t0_never_waits_and_what_waits_is_bounded(monkeypatch):
    encoded = Encoded()
    batches = Batches(encoded)
    t0 = cut_of([window_of(entry("a", None))], 1)
    batches.work_off([], [t0])
    assert (len(encoded.batches), t0.work) == (1, [])
    monkeypatch.setattr(batching, "BATCH_BYTES", 3 * TOKENS * 5 * 2)
    others = [IntegerSAE(5, 17, seed=k) for k in range(5)]
    for k, sae in enumerate(others):
        sae.fingerprint = str(k) * 64
    cuts = [cut_of([window_of(entry(str(k), sae))], 1) for k, sae in enumerate(others)]
    batches.work_off([], cuts)
    assert [len(cut.work) for cut in cuts] == [1, 1, 1, 0, 0]


def test_log_order_is_kept_where_dtypes_and_targets_are_mixed():
    sae, encoded = IntegerSAE(5, 17, d_out=3), Encoded()
    sae.explains = "output"
    lane, window = entry("a", sae), OpenWindow(entry("a", sae).shape, "float16", 5, 17, 3)
    cut = OpenCut("t", 0, 0, WindowSettings())
    for k in range(8):
        acts = np.full((2, 5), k, np.float16 if k % 2 else np.float32)
        out = np.ones((2, 3), np.float16) if k % 3 else None
        cut.work.append(Work(window, lane, Request(request_id=str(k), acts=acts, acts_out=out)))
    Batches(encoded).work_off([cut], [])
    assert [w.request.request_id for b in encoded.batches for w in b] == [str(k) for k in range(8)]
    scores = window.close(CutRef(topic="t", partition=0, a=0, b=1), 1).arrays["request_scores"]
    assert scores[:, 0].tolist() == [5 * k * k for k in range(8)]


def test_a_target_that_nobody_asked_for_changes_nothing():
    """A T0 lane's request may bring one of any width along: one record must not stop ENCODE."""
    acts, out = np.ones((2, 5), np.float16), np.ones((2, 8), np.float16)
    for sae in (None, SAE):
        lane = entry("a", sae)
        found = []
        for target in (None, out):
            window, cut = OpenWindow(lane.shape, "float16", 5, sae.d_sae if sae else 0), cut_of([], 0)
            cut.work.append(Work(window, lane, Request(request_id="r", acts=acts, acts_out=target)))
            Batches(Encoded()).work_off([cut], [])
            found.append(window.close(CutRef(topic="t", partition=0, a=0, b=1), 1))
        assert found[0].header == found[1].header
        for name, array in found[0].arrays.items():
            np.testing.assert_array_equal(array, found[1].arrays[name])


class Slow:
    """An SAE whose firings fail at one batch, and what was ended when they were asked for."""

    def __init__(self, fails_at: int = -1) -> None:
        self.d_in, self.d_sae, self.fingerprint, self.explains = 5, 17, "f" * 64, "input"
        self.asked, self._fails_at = 0, fails_at
        self.reconstruct_from = SAE.reconstruct_from

    def firings(self, x, at_most=None):
        self.asked += 1
        if self.asked - 1 == self._fails_at:
            raise RuntimeError("the device is gone")
        return SAE.firings(x)


def test_the_next_batch_is_begun_before_one_ends(monkeypatch):
    monkeypatch.setattr(batching, "BATCH_BYTES", 1)
    order = []

    def begin(_sae, batch, _at_most, beside):
        name = batch[0].request.request_id
        order.append(f"begin {name}")
        end = begin_batch(SAE, [(w.entry.shape, w.request) for w in batch], None, beside)
        return lambda: (order.append(f"end {name}"), end())[1]

    Batches(begin).work_off([cut_of([window_of(entry("a"))], 3)], [])
    assert order == ["begin 0-0", "begin 0-1", "end 0-0", "begin 0-2", "end 0-1", "end 0-2"]


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_what_fails_beside_is_raised_and_torch_has_its_threads_again(monkeypatch, fails_at):
    monkeypatch.setattr(batching, "BATCH_BYTES", 1)
    encoded, sae, threads = Encoded(), Slow(fails_at), torch.get_num_threads()
    batches = Batches(encoded)
    with pytest.raises(RuntimeError, match="the device is gone"):
        batches.work_off([cut_of([window_of(entry("a", sae))], 3)], [])
    assert len(encoded.batches) == fails_at
    assert torch.get_num_threads() == threads
    batches.work_off([cut_of([window_of(entry("a", sae))], 3)], [])  # and goes on
    assert len(encoded.batches) == fails_at + 3


def test_a_batch_that_is_nearly_full_ends_with_a_full_block(monkeypatch):
    tokens, lane = BLOCK_TOKENS // 4, window_of(entry("a"))
    monkeypatch.setattr(batching, "BATCH_BYTES", 10 * tokens * 5 * 2)
    encoded, cut = Encoded(), OpenCut("t", 0, 0, WindowSettings())
    for k in range(24):
        acts = np.zeros((tokens + 1, 5), np.float16)  # one is special and not encoded
        request = Request(request_id=str(k), acts=acts, special_mask=np.arange(tokens + 1) == 0)
        cut.work.append(Work(lane[1], lane[0], request))
    batches = Batches(encoded)
    batches._l0[batching._way(cut.work[0])] = 1.0
    batches.work_off([cut], [])
    assert [len(b) for b in encoded.batches] == [8, 8, 8]
