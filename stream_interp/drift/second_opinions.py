"""river's ADWIN and Page–Hinkley on a handful of scalar signals: familiar second opinions that open nothing.

Between ticks their state is plain data: the bytes of ADWIN's compiled core and Page–Hinkley's named fields.
"""

from __future__ import annotations

import struct
from typing import Any

from msgspec import Struct
from river.drift import ADWIN, PageHinkley

_FIELDS = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


class Opinion(Struct, frozen=True, kw_only=True):
    """State of both detectors on one signal, and how many drifts they saw."""

    adwin: bytes = b""
    page_hinkley: bytes = b""
    drifts: int = 0


def update(opinion: Opinion, x: float) -> Opinion:
    """Takes one observation of the signal."""
    adwin, page_hinkley = _restore(opinion)
    adwin.update(x)
    page_hinkley.update(x)
    drifts = opinion.drifts + adwin.drift_detected + page_hinkley.drift_detected
    return Opinion(adwin=_adwin_bytes(adwin), page_hinkley=_page_hinkley_bytes(page_hinkley), drifts=drifts)


def _restore(opinion: Opinion) -> tuple[Any, Any]:
    adwin: Any = ADWIN()  # type: ignore[no-untyped-call]
    page_hinkley: Any = PageHinkley()
    if opinion.adwin:
        adwin._drift_detected = bool(opinion.adwin[0])
        adwin._helper.__setstate__(opinion.adwin[1:])
        mean = page_hinkley._x_mean
        detected, mean.n, mean._mean, *rest = struct.unpack("<?6d", opinion.page_hinkley)
        page_hinkley._drift_detected = detected
        for name, value in zip(_FIELDS, rest, strict=True):
            setattr(page_hinkley, name, value)
    return adwin, page_hinkley


def _adwin_bytes(adwin: Any) -> bytes:
    return bytes([adwin.drift_detected]) + bytes(adwin._helper.__getstate__())


def _page_hinkley_bytes(page_hinkley: Any) -> bytes:
    mean = page_hinkley._x_mean
    rest = (getattr(page_hinkley, name) for name in _FIELDS)
    return struct.pack("<?6d", page_hinkley.drift_detected, mean.n, mean._mean, *rest)
