"""ADWIN's windows: rows of at most M buckets of 2^i values each; an overfull row merges its two oldest.

One layout for many streams: alarms come at checks only, so the ages of all streams are equal modulo `clock`, and rows
of buckets smaller than the power of two in `clock` look alike in all of them, once a young stream is filled up with
empty buckets. The `recent` rows are these: a push moves references. In `old` rows each stream has its own count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stream_interp.drift.classical.common import Bools, Floats
from stream_interp.errors import UsageError


@dataclass(frozen=True)
class ADWIN:
    """Attributes are river's; `max_buckets` is M."""

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10

    def __post_init__(self) -> None:
        if self.max_buckets < 2 or min(self.clock, self.min_window_length) < 1:
            raise UsageError(
                f"found {self}, expected max_buckets of 2 or more, clock and min_window_length of 1 or more"
            )


class Bucket(NamedTuple):
    """One bucket of each stream: sum and sum of squared deviations [K]."""

    total: Floats
    variance: Floats


class OldRow(NamedTuple):
    """M buckets, oldest first, of which each stream has the first `filled` [K]; the others are zero."""

    filled: Floats
    buckets: tuple[Bucket, ...]


Row = tuple[Bucket, ...]


class Window(NamedTuple):
    """Of K streams, [K] each; rows from the newest, smallest buckets upwards, in a row the oldest bucket first."""

    width: Floats
    total: Floats
    variance: Floats
    recent: tuple[Row, ...]
    old: tuple[OldRow, ...]


def empty(config: ADWIN, streams: int) -> Window:
    """Before the first observation."""
    zero = _zeros(streams)
    rows = (config.clock & -config.clock).bit_length() - 1
    recent = tuple((Bucket(zero, zero),) * _filled(config, row) for row in range(rows))
    return Window(zero, zero, zero, recent, ())


def extended(config: ADWIN, window: Window, x: Floats) -> Window:
    """The window with one more value of each stream; `x` becomes a part of it."""
    deviation = x - window.total / np.maximum(window.width, 1)
    added = window.width * deviation
    added *= deviation  # in river's order
    width = window.width + 1
    added /= width
    added += window.variance
    recent, bucket = _push(config, window.recent, Bucket(x, _zeros(len(x))))
    old = window.old
    if bucket is not None:
        old = _push_old(config, old, 2 ** len(recent), bucket, width >= _first_age(config, len(recent)))
    return Window(width, window.total + x, added, recent, old)


def wiped(window: Window, alarmed: Bools) -> Window:
    """The window, empty in streams that alarmed."""

    def wipe(values: Floats) -> Floats:
        return np.where(alarmed, 0.0, values)

    def wipe_row(row: Row) -> Row:
        return tuple(Bucket(wipe(bucket.total), wipe(bucket.variance)) for bucket in row)

    recent = tuple(wipe_row(row) for row in window.recent)
    old = tuple(OldRow(wipe(row.filled), wipe_row(row.buckets)) for row in window.old)
    return Window(wipe(window.width), wipe(window.total), wipe(window.variance), recent, old)


@lru_cache(maxsize=8)
def _zeros(streams: int) -> Floats:
    """One for all buckets that hold nothing."""
    zeros = np.zeros(streams)
    zeros.flags.writeable = False
    return zeros


def _first_age(config: ADWIN, row: int) -> int:
    """A stream's age when `row` gets its first bucket."""
    return 1 + config.max_buckets * ((1 << row) - 1)


def _filled(config: ADWIN, row: int) -> int:
    """Buckets in a shared row of a stream so old that it has merged, at a multiple of `clock`."""
    age = config.clock * (config.max_buckets + 1)
    arrived = (age - _first_age(config, row)) // (1 << row) + 1
    return config.max_buckets - 1 + (arrived - config.max_buckets - 1) % 2


def _push(config: ADWIN, recent: tuple[Row, ...], bucket: Bucket) -> tuple[tuple[Row, ...], Bucket | None]:
    """The shared rows with one more bucket in the first, and what falls out of the last."""
    rows = list(recent)
    for i, row in enumerate(recent):
        rows[i] = (*row, bucket)
        if len(rows[i]) <= config.max_buckets:
            return tuple(rows), None
        rows[i], bucket = rows[i][2:], _merged(row[0], rows[i][1], 2**i)
    return tuple(rows), bucket


def _push_old(config: ADWIN, old: tuple[OldRow, ...], size: int, bucket: Bucket, arrives: Bools) -> tuple[OldRow, ...]:
    """The other rows with one more bucket, of `size` values, in the streams where it `arrives`."""
    rows, i, zero = list(old), 0, _zeros(len(arrives))
    none = Bucket(zero, zero)
    while arrives.any():
        if i == len(rows):
            rows.append(OldRow(zero, (none,) * config.max_buckets))
        filled, slots = rows[i].filled, [*rows[i].buckets, none]
        slots = [_where(arrives & (filled == slot), bucket, there) for slot, there in enumerate(slots)]
        filled = filled + arrives
        arrives = filled > config.max_buckets
        if arrives.any():
            bucket = _merged(slots[0], slots[1], size)
            shifted = [*slots[2:], none, none]
            slots = [_where(arrives, after, before) for after, before in zip(shifted, slots, strict=True)]
        rows[i] = OldRow(filled - 2.0 * arrives, tuple(slots[: config.max_buckets]))
        i, size = i + 1, size * 2
    return tuple(rows)


def _where(mask: Bools, yes: Bucket, no: Bucket) -> Bucket:
    if not mask.any():
        return no
    return Bucket(np.where(mask, yes.total, no.total), np.where(mask, yes.variance, no.variance))


def _merged(older: Bucket, newer: Bucket, size: int) -> Bucket:
    """Two buckets of `size` values as one; of two empty ones an empty one."""
    between = older.total - newer.total
    between *= between
    between *= 0.5 / size  # n₀·n₁·(μ₀ − μ₁)²/(n₀ + n₁): to scale by powers of two is exact
    if size > 1:  # one value does not vary
        between += older.variance + newer.variance
    return Bucket(older.total + newer.total, between)
