"""What fires: the encoder's matrix product in tiles that stay in the cache, each looked through as soon as it is there.

A matrix product rounds a row differently in batches of different heights, and some with different numbers of threads.
So rows are multiplied in blocks of one height, the last padded with zeros, each tile by one thread: what fires in a row
depends neither on its neighbours nor on how many threads there are. Nothing of size [n, d_sae] is ever held, and no
thread waits for another at a tile's end, which on a busy machine costs more than the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from stream_interp.sae.blocks import BLOCK_TOKENS, blocks
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.firings import (
    Firings,
    TooManyFirings,
    by_token,
    entries_above,
    largest_of_token,
    magnitudes,
    that_fire,
    top_candidates,
)
from stream_interp.sae.queued import fire_on_device
from stream_interp.sae.threads import one_ahead, one_thread_each

TILE_FEATURES = 1_152  # a tile of both is 2.4 MB in float32
TILE_FEATURES_TOP_K = 6_144  # the k largest of wide tiles are fewer


class _Rule(Protocol):
    """What fires by pre-activations alone."""

    def tile(self, pre: torch.Tensor, start: int) -> Firings:
        """Of `pre` [rows, width], the tile whose first feature is `start`."""

    def block(self, tiles: Iterator[Firings], rows: int) -> Firings:
        """All tiles of a block together, by token, then feature."""


def fire(canonical: Canonical, z: torch.Tensor, at_most: int | None = None) -> Firings:
    """What fires in `z` [n, d_in], normalised and of the dtype of `canonical`. A NaN fires, so that it is seen.

    Raises:
        TooManyFirings: more than `at_most`; found out after each block, when one more is under way.
    """
    if z.device.type != "cpu":
        return fire_on_device(canonical, z, at_most)
    tiles, parts = _Tiles(canonical), [Firings.none(z)]
    with one_thread_each() as run:
        begun = (
            (start, rows, run(tiles.of, tiles.units(block, rows))) for start, rows, block in blocks(z, BLOCK_TOKENS)
        )
        for start, rows, found in one_ahead(begun):
            of_block = tiles.rule.block(found, rows)
            parts.append(of_block._replace(token=of_block.token + start))
            if at_most is not None and (at_most := at_most - len(of_block.token)) < 0:
                raise TooManyFirings
    return Firings(*map(torch.cat, zip(*parts, strict=True)))


class _Tiles:
    """The tiles of one SAE."""

    def __init__(self, canonical: Canonical) -> None:
        self._canonical, d_sae = canonical, len(canonical.b_enc)
        self.rule, self._width = _rule(canonical)
        self._starts = range(0, d_sae, self._width)
        self._free: list[torch.Tensor] = []  # memory that no thread is using

    def units(self, block: torch.Tensor, rows: int) -> list[tuple[torch.Tensor, int, int]]:
        """What `of` takes, for each tile of a block."""
        return [(block, rows, start) for start in self._starts]

    def of(self, unit: tuple[torch.Tensor, int, int]) -> Firings:
        """What fires in the first rows of a block [BLOCK_TOKENS, d_in] in the tile that begins at a feature."""
        block, rows, start = unit
        W_enc, bias = self._canonical.W_enc, self._canonical.b_enc[start : start + self._width]
        memory = self._free.pop() if self._free else bias.new_empty(BLOCK_TOKENS * self._width)
        try:
            with torch.inference_mode():
                out = memory[: BLOCK_TOKENS * len(bias)].view(BLOCK_TOKENS, len(bias))
                pre = torch.addmm(bias, block, W_enc[:, start : start + len(bias)], out=out)
                return self.rule.tile(pre[:rows], start)
        finally:
            self._free.append(memory)


def _rule(canonical: Canonical) -> tuple[_Rule, int]:
    """How this SAE fires, and how wide its tiles are."""
    d_sae, k = len(canonical.b_enc), canonical.k
    if k is None:
        return _Above(canonical), min(d_sae, TILE_FEATURES)
    if canonical.grouped:
        group = d_sae // k
        return _GroupMax(group), min(d_sae, max(1, TILE_FEATURES // group) * group)
    return _TopK(k), min(d_sae, TILE_FEATURES_TOP_K)


class _Above:
    """Entries above their threshold; gated, those of them that the magnitude leaves above 0."""

    def __init__(self, canonical: Canonical) -> None:
        self._threshold, self._magnitude = canonical.threshold, canonical.magnitude
        self._open_at_0 = bool((canonical.threshold < 0).any())

    def tile(self, pre: torch.Tensor, start: int) -> Firings:
        token, feature, value = entries_above(pre, self._threshold[start : start + pre.shape[1]])
        feature = feature + start
        if self._magnitude is not None:
            return magnitudes(Firings(token, feature, value), self._magnitude)
        return that_fire(token, feature, value) if self._open_at_0 else Firings(token, feature, value)

    def block(self, tiles: Iterator[Firings], rows: int) -> Firings:
        return by_token(tiles, rows)


class _GroupMax:
    """The largest entry of each group of neighbours, where above 0; of equal ones one."""

    def __init__(self, group: int) -> None:
        self._group = group

    def tile(self, pre: torch.Tensor, start: int) -> Firings:
        value, place = pre.reshape(len(pre), -1, self._group).max(dim=2)
        feature = place + start + torch.arange(0, pre.shape[1], self._group)
        token = torch.arange(len(pre)).repeat_interleave(value.shape[1])
        return that_fire(token, feature.view(-1), value.view(-1).relu())

    def block(self, tiles: Iterator[Firings], rows: int) -> Firings:
        return by_token(tiles, rows)


class _TopK:
    """The k largest entries of each row, those above 0; of equal ones the first."""

    def __init__(self, k: int) -> None:
        self._k = k

    def tile(self, pre: torch.Tensor, start: int) -> Firings:
        found = top_candidates(pre, self._k)
        return found._replace(feature=found.feature + start)

    def block(self, tiles: Iterator[Firings], rows: int) -> Firings:
        return largest_of_token(by_token(tiles, rows), rows, self._k)
