"""The fit moments as windows carry them: count, sum and scatter about the mean, merged without cancellation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOMENT_COORDINATES = 1_024  # r at most; beyond so many dimensions, moments live in fixed random projections


class Moments:
    """Count, sum and scatter about the mean of fit tokens, merged pairwise (Chan, Golub, LeVeque 1983)."""

    def __init__(self, r: int) -> None:
        self.n = 0
        self.total: NDArray[np.float64] = np.zeros(r)
        self.scatter: NDArray[np.float64] = np.zeros((r, r))

    def merge(self, n: int, total: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        """Takes the moments of another group in: scatter gains n₁n₂/(n₁+n₂)·ddᵀ, d the difference of the means."""
        if self.n and n:
            d = total / n - self.total / self.n
            self.scatter += np.outer(d, d) * (self.n * n / (self.n + n))
        self.n, self.total = self.n + n, self.total + total
        self.scatter += scatter

    def packed(self) -> NDArray[np.float32]:
        """Upper triangle of the scatter, row by row."""
        return self.scatter[np.triu_indices(len(self.total))].astype(np.float32)


def unpack_scatter(packed: NDArray[np.float32], r: int) -> NDArray[np.float64]:
    """The symmetric scatter [r, r] of a packed triangle."""
    scatter = np.zeros((r, r))
    scatter[np.triu_indices(r)] = packed
    return scatter + np.triu(scatter, 1).T
