"""`encode`: everything that ENCODE makes of waiting requests, against the bare product of the same tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

import numpy as np
import torch

from stream_interp.encode.batching import Batches, End, add_statistics
from stream_interp.encode.encoder import Encoder, begin_batch
from stream_interp.encode.lanes import LaneEntry
from stream_interp.encode.open_cut import OpenCut, Work
from stream_interp.encode.requests import Request
from stream_interp.encode.statistics import Statistics
from stream_interp.encode.window import OpenWindow
from stream_interp.records.snapshot import Snapshot
from stream_interp.records.window import CutRef
from stream_interp.sae import int8
from stream_interp.sae.encoder import SAE
from stream_interp.sae.exact import BLOCK_TOKENS, TILE_FEATURES
from stream_interp.sae.precision import COMPUTE_DTYPES, MEASURED_TOKENS, agreement, choose, in_dtype, is_emulated
from stream_interp.sae.threads import one_thread_each
from stream_interp.settings import WindowSettings
from tests.bench.lanes import UNIT_TOKENS, entry_of, firing_sae, snapshots
from tests.bench.measure import Row, compare

SHAPES = ((768, 24_576, 60, 60), (576, 4_608, 33, 160))  # d_in, d_sae, L0, requests
D_IN, WIDTHS = 576, (4_096, 16_384, 65_536, 262_144)
TOP_K = 32


def rows() -> Iterator[Row]:
    """Calibrated lanes and one in fit, jumprelu and TopK; bare products of other dtypes; cost by width."""
    for d_in, d_sae, l0, requests in SHAPES:
        sae, items = firing_sae(d_in, d_sae, l0), snapshots(d_in, requests)
        yield _row(sae, items, "jumprelu float32", calibrated=True)
        yield _row(sae, items, "jumprelu float32, fit with its moments", calibrated=False)
        yield from _bare(sae, items)
        yield from _other_ways(sae, items)
    d_in, d_sae, l0, requests = SHAPES[0]
    yield _row(firing_sae(d_in, d_sae, l0, TOP_K), snapshots(d_in, requests), f"TopK {TOP_K} float32", calibrated=True)
    yield from _by_width()


def window_of(entry: LaneEntry, items: list[Snapshot]) -> None:
    """One window of all these requests, as ENCODE makes it."""
    window, cut = OpenWindow(entry.shape, "float16", entry.d_in, entry.d_sae), OpenCut("t", 0, 0, WindowSettings())
    cut.work = [Work(window, entry, Request(request_id=s.request_id, acts=s.acts)) for s in items]
    _BATCHES.work_off([cut], [])
    window.close(CutRef(topic="t", partition=0, a=0, b=len(items)), 0)


def into_windows(sae: Encoder | None, batch: list[Work], at_most: int | None, beside: Executor) -> End:
    """What ENCODE does with a batch."""
    end_encoding = begin_batch(sae, [(work.entry.shape, work.request) for work in batch], at_most, beside)

    def end() -> Statistics:
        stats = end_encoding()
        add_statistics(batch, stats)
        return stats

    return end


_BATCHES = Batches(into_windows)  # as long as ENCODE: it knows how often each SAE fires


def _tokens(items: list[Snapshot], *, calibrated: bool) -> torch.Tensor:
    """Those that are encoded: a calibrated lane leaves requests below its unit out."""
    kept = [s.acts for s in items if not calibrated or len(s.acts) >= UNIT_TOKENS]
    return torch.from_numpy(np.concatenate(kept)).float()


def _row(sae: SAE, items: list[Snapshot], kind: str, *, calibrated: bool) -> Row:
    """Against the bare product in the dtype of the weights; of `exact` in float32."""
    entry, x = entry_of(sae, calibrated=calibrated), _tokens(items, calibrated=calibrated)
    name, ratio_to = f"encode {sae.d_in} x {sae.d_sae}, {kind}", f"bare {_name(sae.dtype)} addmm"
    return compare(name, lambda: window_of(entry, items), _product(sae, x, sae.dtype), ratio_to, len(x), "tokens/s")


def _bare(sae: SAE, items: list[Snapshot]) -> Iterator[Row]:
    """The bare products of other numbers, against that of float32."""
    x = _tokens(items, calibrated=True)[:2_048]
    for dtype in (torch.bfloat16, torch.float16):
        if not is_emulated(sae, _name(dtype)):
            yield _against_float32(_product(sae, x, dtype), sae, x, _name(dtype))
    if int8.available():
        yield _against_float32(_int8_product(sae, x), sae, x, "int8")


def _against_float32(product: Callable[[], object], sae: SAE, x: torch.Tensor, name: str) -> Row:
    name = f"bare product {sae.d_in} x {sae.d_sae}, {name}"
    return compare(name, product, _product(sae, x, torch.float32), "bare float32 addmm", len(x), "tokens/s")


def _int8_product(sae: SAE, x: torch.Tensor) -> Callable[[], object]:
    """As `exact` has it: in tiles, each by one thread."""
    c, starts = sae.canonical, range(0, sae.d_sae, TILE_FEATURES)
    screen = int8.screen(c.W_enc.T.contiguous(), c.b_enc.double() - c.threshold, x, TILE_FEATURES)
    units = [(q, start) for q in torch.split(screen.rounded(x).q, BLOCK_TOKENS) for start in starts]

    def product() -> None:
        with one_thread_each() as run:
            deque(run(lambda unit: screen.above(*unit), units), maxlen=0)

    return product


def _product(sae: SAE, x: torch.Tensor, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    acts, W_enc, b_enc = (t.to(dtype) for t in (x, sae.canonical.W_enc, sae.canonical.b_enc))
    out = torch.empty(len(acts), sae.d_sae, dtype=dtype)
    return lambda: torch.addmm(b_enc, acts, W_enc, out=out)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other_ways(sae: SAE, items: list[Snapshot]) -> Iterator[Row]:
    """The engine with each of them forced, how far its firings agree with float32, and the one that `auto` takes."""
    x = _tokens(items, calibrated=True)
    shape = f"{sae.d_in} x {sae.d_sae}"
    for name in COMPUTE_DTYPES[1:]:
        way = in_dtype(sae, name)
        yield Row(f"firings {shape}, {name}", agreement(sae, way, x[:BLOCK_TOKENS]), "agreement")
        if not is_emulated(sae, name):
            yield _row(way, items, f"jumprelu {name}", calibrated=True)
    taken = choose(sae, x[:MEASURED_TOKENS]).compute_dtype
    yield _row(in_dtype(sae, taken), items, f"auto: {taken}", calibrated=True)


def _by_width() -> Iterator[Row]:
    """Time a feature, of wider SAEs against the narrowest; L0 stays the same."""
    items = snapshots(D_IN, 6)
    narrow = entry_of(firing_sae(D_IN, WIDTHS[0], 33))
    for width in WIDTHS[1:]:
        yield _cost_a_feature(entry_of(firing_sae(D_IN, width, 33)), narrow, items)


def _cost_a_feature(wide: LaneEntry, narrow: LaneEntry, items: list[Snapshot]) -> Row:
    def as_many_narrow() -> None:
        for _ in range(wide.d_sae // narrow.d_sae):
            window_of(narrow, items)

    name, ratio_to = f"cost a feature, {wide.d_in} x {wide.d_sae}", f"that of {narrow.d_sae} features"
    return compare(name, lambda: window_of(wide, items), as_many_narrow, ratio_to)
