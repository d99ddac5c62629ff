"""Rows in blocks of one height: a matrix product rounds a row differently in batches of different heights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

BLOCK_TOKENS = 512  # of the encoder: fewer would wait for the weights, more would be padding


def blocks(x: torch.Tensor, height: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """(first row, rows, block [height, d]) of `x` [n, d]; the last block ends in rows of zeros."""
    for start in range(0, len(x), height):
        block = x[start : start + height]
        rows = len(block)
        yield start, rows, block if rows == height else torch.cat([block, block.new_zeros(height - rows, x.shape[1])])


def product(x: torch.Tensor, matrix: torch.Tensor, height: int) -> torch.Tensor:
    """`x @ matrix` [n, m], where no row depends on the other rows, bit for bit."""
    out = x.new_empty(len(x), matrix.shape[1])
    for start, rows, block in blocks(x, height):
        out[start : start + rows] = (block @ matrix)[:rows]
    return out
