"""What ENCODE shows of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stream_interp.observe.board import ASSIGNMENT_RECEIVED, SAE_LOADED, Board, Reading

ByReason = tuple[str, str]  # metric, reason

_COUNTERS = {
    "records": "records", "requests": "requests", "tokens": "tokens", "bytes": "bytes", "cuts": "cuts",
    "aborted": "transactions_aborted",
}  # fmt: skip


def encode_board() -> Board:
    """Of a process that has not begun."""
    return Board("encode", [SAE_LOADED, ASSIGNMENT_RECEIVED])


def by_reason(metric: str, counts: Iterable[tuple[str, int]]) -> dict[ByReason, int]:
    """Counts of one metric, to be added up."""
    return {(metric, reason): n for reason, n in counts}


def encode_readings(
    counters: Mapping[str, int], busy_s: Mapping[str, float], account: Mapping[ByReason, int], sae_bytes: int
) -> Iterator[Reading]:
    """The counters of an ENCODE process, as metrics."""
    yield from (Reading(metric, counters.get(name, 0)) for name, metric in _COUNTERS.items())
    yield from (Reading("busy_seconds", seconds, (phase,)) for phase, seconds in busy_s.items())
    yield from (Reading(metric, n, (reason,)) for (metric, reason), n in account.items())
    yield Reading("sae_memory_bytes", sae_bytes)
