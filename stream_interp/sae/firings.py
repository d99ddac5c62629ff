"""Feature activations as the few that are not zero, by token, then feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_WORD = 8  # bytes


class TooManyFirings(Exception):
    """More fired than the caller has room for; fewer tokens at once may fit."""


class Firings(NamedTuple):
    """What fired in n tokens: `token` and `feature` [m] int64, ascending; `value` [m], the activations."""

    token: torch.Tensor
    feature: torch.Tensor
    value: torch.Tensor

    @classmethod
    def none(cls, like: torch.Tensor) -> Firings:
        """Nothing fired; values are of the dtype of `like`, all on its device."""
        nothing = torch.zeros(0, dtype=torch.int64, device=like.device)
        return cls(nothing, nothing, like.new_zeros(0))

    @classmethod
    def of(cls, acts: torch.Tensor) -> Firings:
        """The entries of `acts` [n, d_sae] that are not 0."""
        token, feature = acts.nonzero(as_tuple=True)
        return cls(token, feature, acts[token, feature])

    def dense(self, n: int, d_sae: int) -> torch.Tensor:
        """[n, d_sae], 0 where nothing fired."""
        acts = self.value.new_zeros(n, d_sae)
        acts[self.token, self.feature] = self.value
        return acts

    def cpu(self) -> Firings:
        """On the host."""
        return Firings(*(column.cpu() for column in self))

    def of_tokens(self, chosen: torch.Tensor) -> Firings:
        """What fired in the tokens where `chosen` [n] bool holds, which are counted anew from 0."""
        chosen = chosen.to(self.token.device)
        place = torch.from_numpy(marked(chosen[self.token].cpu().numpy().view(np.uint8))).to(self.token.device)
        return Firings((chosen.cumsum(0) - 1)[self.token[place]], self.feature[place], self.value[place])

    def halves(self, n: int) -> tuple[Firings, Firings]:
        """Of the first n // 2 of n tokens and of the others, which are counted anew from 0."""
        token, split = self.token, int(torch.searchsorted(self.token, n // 2))
        first, second = (Firings(*(column[part] for column in self)) for part in (slice(split), slice(split, None)))
        return first, second._replace(token=token[split:] - n // 2)


def entries_above(pre: torch.Tensor, threshold: torch.Tensor) -> Firings:
    """The entries of `pre` [n, width] that are not `<= threshold` [width]; NaN is among them."""
    entries = _array(pre)
    return _open_entries(pre, entries, np.less_equal(entries, _array(threshold)))


def top_candidates(pre: torch.Tensor, k: int) -> Firings:
    """Entries of `pre` [n, width] above 0 with the `k` largest of each row among them; NaN is, too.

    A row is cut into 3·k pieces; k of them reach the k-th largest of their maxima, so what lies below that
    is not among the k largest entries.
    """
    entries = _array(pre)
    n, width = entries.shape
    pieces = min(3 * k, width)
    maxima = entries[:, : width // pieces * pieces].reshape(n, -1, pieces).max(axis=1)
    floor = np.partition(maxima, pieces - k, axis=1)[:, pieces - k] if pieces > k else np.full(n, -np.inf)
    smallest = np.finfo(entries.dtype).smallest_subnormal
    return _open_entries(pre, entries, entries < np.fmax(floor, smallest).astype(entries.dtype)[:, None])


def largest_of_token(candidates: Firings, n: int, k: int) -> Firings:
    """The `k` largest of each of n tokens, of equal ones the first; `candidates` by token. NaN is larger than all."""
    largest_first = torch.argsort(candidates.value, descending=True, stable=True)
    order = largest_first[torch.argsort(candidates.token[largest_first], stable=True)]
    token = candidates.token[order]
    start = torch.searchsorted(token, torch.arange(n, device=token.device))
    rank = torch.arange(len(token), device=token.device) - start[token]
    kept = order[rank < k].sort().values  # in the order given: by token, then feature
    return Firings(*(column[kept] for column in candidates))


def _array(values: torch.Tensor) -> NDArray[np.floating[Any]]:
    """Without a copy; of bfloat16, which numpy does not know, in float32: exact."""
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _open_entries(pre: torch.Tensor, entries: NDArray[np.floating[Any]], closed: NDArray[np.bool_]) -> Firings:
    """Where `closed` [n, width] is false."""
    place, width = marked(np.logical_not(closed, out=closed).view(np.uint8)), max(pre.shape[1], 1)
    token = place // width
    value = torch.from_numpy(entries.reshape(-1)[place]).to(pre.dtype)
    return Firings(torch.from_numpy(token), torch.from_numpy(place - token * width), value)


def marked(marks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where `marks` [n, width] are not 0, row by row. numpy is several times faster here than torch, in one thread.

    Eight entries are looked at as one word: few are marked, so most words are 0.
    """
    flat = marks.reshape(-1)
    if len(flat) % _WORD:
        return np.flatnonzero(flat)
    words = flat.view(np.int64)
    hit = np.flatnonzero(words != 0)  # of booleans it is four times faster
    byte = np.flatnonzero(words[hit].view(np.uint8) != 0)
    place: NDArray[np.int64] = hit[byte // _WORD] * _WORD + byte % _WORD
    return place


def magnitudes(gates: Firings, magnitude: tuple[torch.Tensor, torch.Tensor]) -> Firings:
    """Of pre-activations whose gate is open, the activations relu(p·gain + offset) above 0; [d_sae] each."""
    gain, offset = (per_feature[gates.feature] for per_feature in magnitude)
    return that_fire(gates.token, gates.feature, (gates.value * gain).add_(offset).relu_())


def that_fire(token: torch.Tensor, feature: torch.Tensor, value: torch.Tensor) -> Firings:
    """Those whose value is not 0."""
    fired = value != 0
    return Firings(token[fired], feature[fired], value[fired])


def by_token(parts: Iterable[Firings], n: int) -> Firings:
    """All in order of their tokens, which are below `n`; of each token in the order given."""
    token, feature, value = map(torch.cat, zip(*parts, strict=True))
    if n > np.iinfo(np.uint16).max:
        order = torch.argsort(token, stable=True)
        return Firings(token[order], feature[order], value[order])
    place = np.argsort(token.numpy().astype(np.uint16), kind="stable")  # a radix sort, of integers so short
    by_numpy = [torch.from_numpy(column.numpy()[place]) for column in (token, feature)]
    return Firings(by_numpy[0], by_numpy[1], value[torch.from_numpy(place)])
