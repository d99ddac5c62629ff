"""Where ADWIN cuts its windows: a quick test of all streams that misses none, then river's arithmetic on the suspects.

The quick test: with c = Σ(values before the cut) − n₀·mean, the means differ by |c|·W/(n₀n₁), and m ≥ W/(n₀n₁). So an
alarm needs |c| > √(2v·δ'·n₀n₁/W) + ⅔·δ', hence c² > 2v·δ'·n₀n₁/W + (⅔·δ')², without a root or a division a cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stream_interp.drift.classical.adwin_window import ADWIN, Bucket, Window
from stream_interp.drift.classical.common import Bools, Floats

BLOCK = 1_024  # suspects judged together: what they need stays in the cache
CAUTION = 1e-3  # relative, of c: rounding of the quick test, many times over
ROUNDING = 1e-12  # of sums of at most some hundred buckets, relative to the sum of magnitudes


def shrunk(config: ADWIN, window: Window) -> tuple[Window, Bools]:
    """Buckets are dropped from the old end until no cut is left, as far as width, total and variance go; and where."""
    width, total, variance = window.width.copy(), window.total.copy(), window.variance.copy()
    suspects = np.flatnonzero(_suspects(config, window))
    for at in range(0, len(suspects), BLOCK):
        block = suspects[at : at + BLOCK]
        width[block], total[block], variance[block] = _shortened(config, window, block)
    return Window(width, total, variance, window.recent, window.old), width < window.width


def _shortened(config: ADWIN, window: Window, streams: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Width, total and variance of what river keeps of some windows."""
    width, total, variance = window.width[streams], window.total[streams], window.variance[streams]
    sizes, totals, variances = _buckets(window, streams)
    left = np.arange(len(streams))
    while True:
        cut = _cuts(config, width[left], total[left], variance[left], sizes, totals)
        left, sizes, totals, variances = left[cut], sizes[:, cut], totals[:, cut], variances[:, cut]
        if not len(left):
            return width, total, variance
        oldest, k = (sizes > 0).argmax(axis=0), np.arange(len(left))
        n, u, v = sizes[oldest, k], totals[oldest, k], variances[oldest, k]
        sizes[oldest, k] = totals[oldest, k] = 0.0
        width[left] -= n
        total[left] -= u
        w = width[left]
        apart = u / n - total[left] / w
        variance[left] -= v + n * w * apart * apart / (n + w)


def _suspects(config: ADWIN, window: Window) -> Bools:
    """The quick test."""
    width, total, variance = window.width, window.total, window.variance
    grown = width > config.grace_period
    log_term = np.log(2 * np.log(np.maximum(width, 2)) / config.delta)
    mean, floor, scale = total / width, (2 / 3 * log_term) ** 2, 2 * log_term * variance / width / width
    magnitude = ROUNDING * (np.sqrt(width * variance) + 2 * np.abs(total))
    found: Bools = ~(magnitude < CAUTION / 2 * np.sqrt(floor + scale * width))  # cannot be trusted, or not a number
    floor *= (1 - CAUTION) ** 2
    scale *= (1 - CAUTION) ** 2
    remaining = total.copy()
    for bucket, newer in _borders(window, config.min_window_length):
        remaining -= bucket
        excess = mean * newer
        excess -= remaining  # c, as mean·width is the total
        excess *= excess
        n0 = width - newer  # below 0 where a shared bucket is empty
        allowed = scale * newer
        allowed *= n0
        allowed += floor
        found |= (excess > allowed) & (n0 >= config.min_window_length)
    return found & grown


def _borders(window: Window, least: int) -> Iterator[tuple[Floats, float | Floats]]:
    """From the oldest bucket: its sums, and how many values are newer, as long as these are at `least` so many."""
    shared, size = sum(len(row) << i for i, row in enumerate(window.recent)), 1 << len(window.recent)
    newer = np.full(len(window.width), float(shared))
    for i, row in enumerate(window.old):
        newer += row.filled * (size << i)
    for i, row in reversed(list(enumerate(window.old))):
        for slot, bucket in enumerate(row.buckets):
            newer = newer - (row.filled > slot) * float(size << i)
            yield bucket.total, newer
    for bucket, _, later in _recent(window):
        if later >= least:
            yield bucket.total, float(later)


def _recent(window: Window) -> Iterator[tuple[Bucket, int, int]]:
    """Shared buckets from the oldest, with their size and the number of newer values."""
    newer = sum(len(row) << i for i, row in enumerate(window.recent))
    for i, row in reversed(list(enumerate(window.recent))):
        for bucket in row:
            newer -= 1 << i
            yield bucket, 1 << i, newer


def _buckets(window: Window, streams: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Sizes (0: not there), sums and variances [buckets, streams], the oldest first."""
    sizes: list[Floats] = []
    found: list[Bucket] = []
    for i, row in reversed(list(enumerate(window.old))):
        filled, size = row.filled[streams], float(1 << len(window.recent) + i)
        sizes += [np.where(filled > slot, size, 0.0) for slot in range(len(row.buckets))]
        found += row.buckets
    for bucket, n, newer in _recent(window):
        sizes.append(np.where(window.width[streams] > newer, float(n), 0.0))
        found.append(bucket)
    totals = np.stack([bucket.total[streams] for bucket in found])
    return np.stack(sizes), totals, np.stack([bucket.variance[streams] for bucket in found])


def _cuts(config: ADWIN, width: Floats, total: Floats, variance: Floats, sizes: Floats, totals: Floats) -> Bools:
    """Which windows can be cut: sums in river's order, from the oldest bucket."""
    n0, u0 = np.add.accumulate(sizes), np.add.accumulate(totals)
    n1, u1 = width - n0, np.subtract.accumulate(np.vstack([total, totals]))[1:]
    least = config.min_window_length
    # by Python, as numpy's logarithms differ in their last bit; a window of one value has no border
    log_term = np.array([math.log(2 * math.log(max(w, 2.0)) / config.delta) for w in width.tolist()])
    with np.errstate(divide="ignore", invalid="ignore"):  # of borders that are none, and of no variance left by drops
        m = 1 / (n0 - least + 1) + 1 / (n1 - least + 1)
        epsilon = np.sqrt(2 * m * (variance / width) * log_term) + 2 / 3 * log_term * m
        found = np.abs(u0 / n0 - u1 / n1) > epsilon
    found &= (sizes > 0) & (n0 >= least) & (n1 >= max(least, 1))
    anywhere: Bools = found.any(axis=0)
    return anywhere
