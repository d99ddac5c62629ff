"""What the classical detectors share: the checks of their input, the wipe after an alarm, river's running means."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_interp.errors import BlindError, UsageError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = TypeVar("State")


def finite(x: ArrayLike, streams: int) -> Floats:
    """A copy of `x`, float64 [K].

    Raises:
        BlindError: a value is not finite. river takes one NaN without a word and never alarms again.
        UsageError: `x` is not one value a stream.
    """
    values = np.array(x, np.float64)
    if values.shape != (streams,):
        raise UsageError(f"found values of shape {values.shape}, expected one for each of {streams} streams")
    good = np.isfinite(values)
    if not good.all():
        first = int(np.argmin(good))
        raise BlindError(
            f"stream {first}: found {values[first]}, expected a finite number: it would blind the detector for good; "
            "leave the observation out, or repair its source"
        )
    return values


def bits(x: ArrayLike, streams: int) -> Floats:
    """A copy of `x`, float64 [K], zeros and ones.

    Raises:
        BlindError: a value is not finite.
        UsageError: a value is neither 0 nor 1, or `x` is not one value a stream.
    """
    values = finite(x, streams)
    good = (values == 0) | (values == 1)
    if not good.all():
        first = int(np.argmin(good))
        raise UsageError(f"stream {first}: found {values[first]}, expected 0 or 1: this detector counts events")
    return values


def wiped(state: State, fresh: State) -> State:
    """`state`, in which streams that alarmed are as in `fresh`: river wipes them before their next observation.

    Args:
        state: a dataclass of arrays [..., K], one of them `drift` [K].
        fresh: the state of one stream before its first observation.
    """
    of: Any = state
    if not of.drift.any():
        return state
    new = {f.name: np.where(of.drift, getattr(fresh, f.name), getattr(state, f.name)) for f in fields(of)}
    wiped_state: State = replace(of, **new)
    return wiped_state


def mean(old: Floats, n: Floats, x: Floats, out: Floats | None = None) -> Floats:
    """The running mean after the n-th value `x`; river multiplies by 1/n, which is not the same as to divide by n."""
    new: Floats = np.subtract(x, old, out=out)
    new *= 1.0 / n
    new += old
    return new


def ew_mean(old: Floats, factor: float, first: Bools, x: Floats) -> Floats:
    """The exponentially weighted mean with `x`; it starts as its first value."""
    return np.where(first, x, factor * x + (1.0 - factor) * old)
