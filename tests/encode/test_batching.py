"""Which waiting requests are encoded when, in batches of what size; and that nothing of it changes a window."""

from __future__ import annotations

import numpy as np
import pytest

from stream_interp.encode import batching
from stream_interp.encode.batching import Batches, add_statistics
from stream_interp.encode.encoder import encode_batch
from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.open_cut import OpenCut, Work
from stream_interp.encode.requests import LaneShape, Request
from stream_interp.encode.window import OpenWindow
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef
from stream_interp.sae.activation import BLOCK_TOKENS
from stream_interp.settings import WindowSettings
from tests.encode.slow_twin import IntegerSAE

SAE = IntegerSAE(5, 17)
TOKENS = 8


class Encoded:
    """What `Batches` was given, batch after batch."""

    def __init__(self) -> None:
        self.batches: list[list[Work]] = []

    def __call__(self, sae, batch):
        self.batches.append(batch)
        stats = encode_batch(sae, [(w.entry.shape, w.request) for w in batch])
        add_statistics(batch, stats)
        return stats


def entry(hook: str, sae=SAE) -> LaneEntry:
    return LaneEntry(LaneShape(lane=Lane(model_id="m", hook_name=hook), massive="off"), sae, 5, 5, "cpu")


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


def test_an_sae_that_fires_everywhere_gets_small_batches(monkeypatch):
    monkeypatch.setattr(batching, "FIRINGS_BYTES", batching._FIRING_BYTES * SAE.d_sae * TOKENS * 4)
    encoded = Encoded()
    batches = Batches(encoded)
    batches.work_off([cut_of([window_of(entry("a"))], 40)], [])
    assert len(encoded.batches[0]) == 4  # nothing is known of it: it may fire everywhere
    firings = [sum(len(SAE.firings(w_acts(w)).token) for w in b) for b in encoded.batches[1:]]
    assert max(firings) <= SAE.d_sae * TOKENS * 4
    assert max(map(len, encoded.batches)) > 4  # it does not


def w_acts(work: Work):
    import torch

    return torch.from_numpy(work.request.acts).float()
