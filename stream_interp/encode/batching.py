"""Waiting requests → batches of one SAE, and their statistics → the windows they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import groupby

from stream_interp.encode.encoder import Encoder
from stream_interp.encode.open_cut import OpenCut, Work
from stream_interp.encode.statistics import Statistics
from stream_interp.encode.tokens import counted
from stream_interp.sae.blocks import BLOCK_TOKENS
from stream_interp.sae.firings import TooManyFirings
from stream_interp.sae.threads import one_thread_each

BATCH_BYTES = 12 * 1024 * 1024  # activations at once, as they came; and as many under way
_NEARLY_FULL, _SPARE_TOKENS = 0.75, 48  # a batch so full ends where its last block is full but for so many tokens
FIRINGS_BYTES = 128 * 1024 * 1024  # of what fires in a batch; of one request, or of two blocks, it may be more
MAX_FIRINGS = FIRINGS_BYTES // 96  # bytes of all that is made of one (token, feature)

End = Callable[[], Statistics]
BeginBatch = Callable[[Encoder | None, list[Work], int | None, Executor], End]
Way = tuple[str, str]  # an SAE's fingerprint, and what it multiplies in


class Batches:
    """Encodes what waits in cuts, in batches of one SAE, compute_dtype and width.

    Of one is found what fires, while the one before is put into its windows and the next one is laid out.

    Args:
        begin: begins a batch, with work that may go on beside; what it returns puts the batch's statistics into its
            windows, and returns them. Raises TooManyFirings, and has changed nothing then, where more fire than its
            third argument.
    """

    def __init__(self, begin: BeginBatch) -> None:
        self._begin = begin
        self._beside = ThreadPoolExecutor(1, "firings")
        self._l0: dict[Way, float] = {}  # of each SAE's last batch

    def work_off(self, closed: Sequence[OpenCut], still_open: Sequence[OpenCut]) -> None:
        """Nothing of `closed` waits any longer; what is open may wait until it fills a block of the encoder's product.

        T0 has no product to fill, and never more than BATCH_BYTES wait.
        """
        must = {id(work) for cut in closed for work in cut.work}
        groups: dict[tuple[Way, int], list[tuple[OpenCut, Work]]] = {}
        for cut in [*closed, *still_open]:
            for work in cut.work:
                groups.setdefault(_group_key(work), []).append((cut, work))
            cut.work = []
        waiting_bytes = 0
        for group in groups.values():
            group_bytes = sum(_nbytes(work) for _, work in group)
            may_wait = _may_wait([work for _, work in group]) and not any(id(work) in must for _, work in group)
            if may_wait and waiting_bytes + group_bytes <= BATCH_BYTES:
                waiting_bytes += group_bytes
                for cut, work in group:
                    cut.work.append(work)
            else:
                turn: dict[int, int] = {}  # of each window, as they come
                by_window = sorted(group, key=lambda pair: turn.setdefault(id(pair[1].window), len(turn)))
                self._work_off([work for _, work in by_window])

    def _work_off(self, group: list[Work]) -> None:
        """`group`: one run of requests for each window, each in log order."""
        sae, way = group[0].entry.sae, _way(group[0])
        under_way: tuple[list[Work], End] | None = None
        with one_thread_each():
            for batch in _bounded(group, lambda: MAX_FIRINGS / self._expected_l0(sae, way)):
                begun = batch, self._begin(sae, batch, MAX_FIRINGS if len(batch) > 1 else None, self._beside)
                if under_way:
                    self._end(sae, *under_way)
                under_way = begun
            if under_way:
                self._end(sae, *under_way)

    def _end(self, sae: Encoder | None, batch: list[Work], end: End) -> None:
        try:
            stats = end()
        except TooManyFirings:  # it fires much more often than in the batch before
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                at_most = MAX_FIRINGS if len(half) > 1 else None
                self._end(sae, half, self._begin(sae, half, at_most, self._beside))
            return
        if sae is not None and (tokens := int(stats.tokens.sum())):
            self._l0[_way(batch[0])] = len(stats.firings.feature) / tokens

    def _expected_l0(self, sae: Encoder | None, way: Way) -> float:
        if sae is None:
            return 1.0
        return max(1.0, min(sae.d_sae, 2 * self._l0.get(way, sae.d_sae)))


def add_statistics(batch: Sequence[Work], stats: Statistics) -> None:
    """The statistics of each request into its window and its examples, in the order of the batch."""
    start = 0
    for window, run in groupby(batch, lambda work: work.window):
        works = list(run)
        own = stats.of(start, start := start + len(works))
        window.add(own)
        examples = works[0].examples
        if examples is not None:
            names = [work.request.request_id for work, short in zip(works, own.too_short, strict=True) if not short]
            examples.add(names, own.spans.only(0)[1])


def _way(work: Work) -> Way:
    return work.entry.sae.fingerprint if work.entry.sae else "", work.entry.shape.compute_dtype


def _group_key(work: Work) -> tuple[Way, int]:
    return _way(work), work.request.acts.shape[1]


def _target_key(work: Work) -> object:
    """Only requests with one of these go together: of transcoders, whether and how wide a target there is."""
    out, sae = work.request.acts_out, work.entry.sae
    return None if out is None or sae is None or sae.explains != "output" else out.shape[1]


def _nbytes(work: Work) -> int:
    return work.request.acts.nbytes + (0 if work.request.acts_out is None else work.request.acts_out.nbytes)


def _may_wait(group: list[Work]) -> bool:
    return group[0].entry.sae is not None and sum(len(work.request.acts) for work in group) < BLOCK_TOKENS


def _bounded(group: list[Work], max_tokens: Callable[[], float]) -> Iterator[list[Work]]:
    """Batches of at most BATCH_BYTES and of so many tokens, or of one request. Asks anew for each batch.

    The last block of a batch is padded to its height and costs as much as a full one.
    """
    batch, held_bytes, tokens, encoded, limit = list[Work](), 0, 0, 0, max_tokens()
    for work in group:
        n_bytes, n_tokens = _nbytes(work), len(work.request.acts)
        is_full = held_bytes + n_bytes > BATCH_BYTES or tokens + n_tokens > limit
        fits_well = held_bytes > _NEARLY_FULL * BATCH_BYTES and -encoded % BLOCK_TOKENS <= _SPARE_TOKENS
        if batch and (is_full or fits_well or _target_key(work) != _target_key(batch[-1])):
            yield batch
            batch, held_bytes, tokens, encoded, limit = [], 0, 0, 0, max_tokens()
        batch.append(work)
        held_bytes, tokens = held_bytes + n_bytes, tokens + n_tokens
        encoded += counted(work.request)
    yield batch
