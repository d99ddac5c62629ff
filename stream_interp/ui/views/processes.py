"""The processes behind the page, by their heartbeats."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_interp.kafka.heartbeat import INTERVAL_S
from stream_interp.ui.model.model import Model
from stream_interp.ui.views.lanes import Now

SILENT_AFTER_MS = round(3 * INTERVAL_S * 1000)


class ProcessRow(Struct, frozen=True, kw_only=True):
    """One process. `state`: alive, silent (no heartbeat for three intervals), or ended (it said so)."""

    process_id: str
    kind: str
    state: Literal["alive", "silent", "ended"]
    age_s: float
    up_s: float
    version: str
    partitions: list[str]
    counters: dict[str, int]
    sinks_failing: list[str]

    @property
    def alive(self) -> bool:
        """It beats."""
        return self.state == "alive"


class Processes(Struct, frozen=True, kw_only=True):
    """All of them, and what this page itself has read."""

    schema_version: Literal[1] = 1
    now_ms: int
    processes: list[ProcessRow]
    read: dict[str, int]  # records by topic
    unreadable: dict[str, int]


def processes(model: Model, now: Now) -> Processes:
    """Silent ones first."""
    return Processes(
        now_ms=now.ms, processes=process_rows(model, now), read=dict(model.read), unreadable=dict(model.unreadable)
    )


def process_rows(model: Model, now: Now) -> list[ProcessRow]:
    """Silent ones first, then alive, then ended."""
    rows = []
    for beat in model.heartbeats.values():
        age_ms = max(0, now.ms - beat.as_of_ms)
        state: Literal["alive", "silent", "ended"] = (
            "ended" if beat.stopping else "silent" if age_ms > SILENT_AFTER_MS else "alive"
        )
        rows.append(
            ProcessRow(
                process_id=beat.process_id,
                kind=beat.kind,
                state=state,
                age_s=age_ms / 1000,
                up_s=max(0, beat.as_of_ms - beat.started_at_ms) / 1000,
                version=beat.version,
                partitions=beat.partitions,
                counters=beat.counters,
                sinks_failing=beat.sinks_failing,
            )
        )
    return sorted(rows, key=lambda row: (("silent", "alive", "ended").index(row.state), row.kind, row.process_id))
