"""What ENCODE shows of itself. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from stream_interp.observe.board import ASSIGNMENT_RECEIVED, SAE_LOADED, Board, Reading
from stream_interp.records.cut import Reason
from stream_interp.records.dlq import REASONS

_METRICS: dict[str, Iterable[str]] = {"records_rejected": REASONS, "records_not_counted": get_args(Reason)}

ByReason = tuple[str, str]  # metric, reason

_COUNTERS = {
    "records": "records", "requests": "requests", "tokens": "tokens", "bytes": "bytes", "cuts": "cuts",
    "aborted": "transactions_aborted",
}  # fmt: skip


def encode_board() -> Board:
    """Of a process that has not begun."""
    return Board("encode", [SAE_LOADED, ASSIGNMENT_RECEIVED])


def nothing_left_out() -> Counter[ByReason]:
    """All reasons there are, so that a rise from zero can be seen."""
    return Counter({(metric, reason): 0 for metric, reasons in _METRICS.items() for reason in reasons})


def by_reason(metric: str, counts: Iterable[tuple[str, int]]) -> dict[ByReason, int]:
    """Counts of one metric, to be added up."""
    return {(metric, reason): n for reason, n in counts}


def encode_readings(counters: Mapping[str, int], account: Mapping[ByReason, int], sae_bytes: int) -> Iterator[Reading]:
    """The counters of an ENCODE process, as metrics."""
    yield from (Reading(metric, counters.get(name, 0)) for name, metric in _COUNTERS.items())
    yield from (Reading(metric, n, (reason,)) for (metric, reason), n in account.items())
    yield Reading("sae_memory_bytes", sae_bytes)
