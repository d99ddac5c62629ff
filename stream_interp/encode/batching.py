"""Waiting requests → batches of one SAE, and their statistics → the windows they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from stream_interp.encode.encoder import Encoder
from stream_interp.encode.open_cut import OpenCut, Work
from stream_interp.encode.statistics import Statistics
from stream_interp.sae.activation import BLOCK_TOKENS

BATCH_BYTES = (
    12 * 1024 * 1024
)  # activations encoded at once, as they came; larger arrays would be mapped anew each time
FIRINGS_BYTES = 256 * 1024 * 1024  # of what fires in a batch, if twice as often as in the one before at most
_FIRING_BYTES = 96  # all that is made of one (token, feature)

EncodeBatch = Callable[[Encoder | None, list[Work]], Statistics]


class Batches:
    """Encodes what waits in cuts, in batches of one SAE, dtype and widths.

    Args:
        encode: puts a batch's statistics into its windows, and returns them.
    """

    def __init__(self, encode: EncodeBatch) -> None:
        self._encode = encode
        self._l0: dict[str, float] = {}  # of each SAE's last batch, by fingerprint

    def work_off(self, closed: Sequence[OpenCut], still_open: Sequence[OpenCut]) -> None:
        """Nothing of `closed` waits any longer; what is open waits until it fills a block of the encoder's product."""
        must = {id(work) for cut in closed for work in cut.work}
        groups: dict[tuple[object, ...], list[tuple[OpenCut, Work]]] = {}
        for cut in [*closed, *still_open]:
            for work in cut.work:
                groups.setdefault(_batch_key(work), []).append((cut, work))
            cut.work = []
        for group in groups.values():
            if sum(len(w.request.acts) for _, w in group) < BLOCK_TOKENS and not any(id(w) in must for _, w in group):
                for cut, work in group:
                    cut.work.append(work)
            else:
                self._work_off(sorted((work for _, work in group), key=lambda work: id(work.window)))

    def _work_off(self, group: list[Work]) -> None:
        """`group`: one run of requests for each window, each in log order."""
        sae = group[0].entry.sae
        for batch in _bounded(group, lambda: FIRINGS_BYTES // _FIRING_BYTES / self._expected_l0(sae)):
            stats = self._encode(sae, batch)
            if sae is not None and (tokens := int(stats.tokens[~stats.too_short].sum())):
                self._l0[sae.fingerprint] = len(stats.firings.feature) / tokens

    def _expected_l0(self, sae: Encoder | None) -> float:
        if sae is None:
            return 1.0
        return max(1.0, min(sae.d_sae, 2 * self._l0.get(sae.fingerprint, sae.d_sae)))


def add_statistics(batch: Sequence[Work], stats: Statistics) -> None:
    """The statistics of each request into its window and its examples, in the order of the batch."""
    start = 0
    for window, run in groupby(batch, lambda work: work.window):
        works = list(run)
        own = stats.of(start, start := start + len(works))
        window.add(own)
        examples = works[0].examples
        if examples is not None:
            examples.add([work.request.request_id for work in works], own.maxima)


def _batch_key(work: Work) -> tuple[object, ...]:
    acts, out = work.request.acts, work.request.acts_out
    sae = work.entry.sae.fingerprint if work.entry.sae else ""
    return sae, str(acts.dtype), acts.shape[1], None if out is None else (str(out.dtype), out.shape[1])


def _bounded(group: list[Work], max_tokens: Callable[[], float]) -> Iterator[list[Work]]:
    """Batches of at most BATCH_BYTES and of so many tokens, or of one request. Asks anew for each batch."""
    batch, held_bytes, tokens, limit = list[Work](), 0, 0, max_tokens()
    for work in group:
        acts = work.request.acts
        if batch and (held_bytes + acts.nbytes > BATCH_BYTES or tokens + len(acts) > limit):
            yield batch
            batch, held_bytes, tokens, limit = [], 0, 0, max_tokens()
        batch.append(work)
        held_bytes, tokens = held_bytes + acts.nbytes, tokens + len(acts)
    yield batch
