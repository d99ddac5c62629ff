"""What fires: the encoder's matrix product in tiles that stay in the cache, each looked through as soon as it is there.

A matrix product rounds a row differently in batches of different heights. So rows are multiplied in blocks of one
height, the last padded with zeros, and a row's features never depend on its neighbours. Tiles of features keep the
pre-activations in the cache and never hold [n, d_sae] at once; they are also no slower than one large product.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stream_interp.sae.blocks import blocks
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.firings import Firings, where_above

BLOCK_TOKENS = 384  # a multiple of 8; fewer would wait for the weights, more would be padding
TILE_FEATURES = 1_536  # a tile of both is 2.4 MB in float32


def fire(canonical: Canonical, z: torch.Tensor) -> Firings:
    """What fires in `z` [n, d_in], normalised and of the dtype of `canonical`. A NaN fires, so that it is seen."""
    tiles, parts = _Tiles(canonical), [Firings.none(z)]
    for start, rows, block in blocks(z, BLOCK_TOKENS):
        found = tiles.firings(block, rows)
        parts.append(found._replace(token=found.token + start))
    return Firings(*map(torch.cat, zip(*parts, strict=True)))


class _Tiles:
    """The tiles of one SAE, and the memory that each of them uses again."""

    def __init__(self, canonical: Canonical) -> None:
        d_sae, like = len(canonical.b_enc), canonical.b_enc
        self._canonical, self._group = canonical, d_sae // (canonical.k or 1) if canonical.grouped else 1
        self._width = min(d_sae, max(1, TILE_FEATURES // self._group) * self._group)
        self._pre = like.new_empty(BLOCK_TOKENS * self._width)
        self._mask = torch.empty(BLOCK_TOKENS * self._width, dtype=torch.bool, device=like.device)

    def firings(self, block: torch.Tensor, rows: int) -> Firings:
        """What fires in the first `rows` of `block` [BLOCK_TOKENS, d_in]."""
        if self._canonical.k is not None and not self._canonical.grouped:
            return self._top_k(block, rows, self._canonical.k)
        select = self._group_max if self._canonical.grouped else self._above
        token, feature, value = map(torch.cat, zip(*(select(p, s, rows) for s, p in self._pres(block)), strict=True))
        return Firings(token, feature, value).by_token()

    def _pres(self, block: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The first feature, and the pre-activations [BLOCK_TOKENS, width], of each tile."""
        W_enc, b_enc = self._canonical.W_enc, self._canonical.b_enc
        for start in range(0, len(b_enc), self._width):
            bias = b_enc[start : start + self._width]
            out = self._pre[: BLOCK_TOKENS * len(bias)].view(BLOCK_TOKENS, len(bias))
            yield start, torch.addmm(bias, block, W_enc[:, start : start + len(bias)], out=out)

    def _above(self, pre: torch.Tensor, start: int, rows: int) -> Firings:
        """Entries above their threshold; gated, those of them that the magnitude leaves above 0."""
        width = pre.shape[1]
        mask = self._mask[: pre.numel()].view_as(pre)
        place = where_above(pre[:rows], self._canonical.threshold[start : start + width], mask[:rows])
        token, value = place // width, pre.view(-1)[place]
        feature = place - token * width + start
        if self._canonical.magnitude is None:
            return Firings(token, feature, value)
        gain, offset = (per_feature[feature] for per_feature in self._canonical.magnitude)
        value = (value * gain).add_(offset).relu_()
        return _fired(token, feature, value)

    def _group_max(self, pre: torch.Tensor, start: int, rows: int) -> Firings:
        """The largest entry of each group of neighbours, where above 0; of equal ones one."""
        value, place = pre[:rows].view(rows, -1, self._group).max(dim=2)
        feature = place + start + torch.arange(0, pre.shape[1], self._group, device=pre.device)
        return _fired(_tokens(value), feature.view(-1), value.view(-1).relu())

    def _top_k(self, block: torch.Tensor, rows: int, k: int) -> Firings:
        """The k largest entries of each row, those above 0: the k largest of the k largest of each tile."""
        values, features = [], []
        for start, pre in self._pres(block):
            value, feature = pre[:rows].topk(min(k, pre.shape[1]), dim=1, sorted=False)
            values.append(value)
            features.append(feature + start)
        value, place = torch.cat(values, 1).topk(k, dim=1, sorted=False)
        feature, order = torch.cat(features, 1).gather(1, place).sort(dim=1)
        return _fired(_tokens(value), feature.view(-1), value.gather(1, order).view(-1).relu())


def _tokens(value: torch.Tensor) -> torch.Tensor:
    """The row of each entry of `value` [rows, m], flat."""
    return torch.arange(len(value), device=value.device).repeat_interleave(value.shape[1])


def _fired(token: torch.Tensor, feature: torch.Tensor, value: torch.Tensor) -> Firings:
    fired = value != 0
    return Firings(token[fired], feature[fired], value[fired])
