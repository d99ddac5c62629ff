"""The cuts account and the baselines, as tables."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_interp.records.lane import Lane
from stream_interp.ui.model.account import CutRow, Gap, PartitionAccount
from stream_interp.ui.model.model import Model
from stream_interp.ui.model.versions import BaselineVersion
from stream_interp.ui.views.lanes import Now
from stream_interp.ui.views.paging import Page, page_of

PARTITIONS_PER_PAGE = 50
BASELINES_PER_PAGE = 50
CUTS_SHOWN = 10


class PartitionRow(Struct, frozen=True, kw_only=True):
    """One input partition since the first cut that the topic still holds. Counts are records but for `requests`."""

    topic: str
    partition: int
    first_offset: int
    end_offset: int
    cuts: int
    age_s: float
    requests: int
    records: int
    counted: int
    pending: int
    not_counted: dict[str, int]
    rejected: dict[str, int]
    unaccounted: int
    gaps_total: int
    gaps: list[Gap]
    newest: list[CutRow]


class CutsAccount(Struct, frozen=True, kw_only=True):
    """What became of every record. `balanced`: no gap anywhere, and every record has a fate."""

    schema_version: Literal[1] = 1
    now_ms: int
    balanced: bool
    records: int
    counted: int
    not_counted: dict[str, int]
    partitions: Page[PartitionRow]


class BaselineRow(Struct, frozen=True, kw_only=True):
    """One version of a lane's baseline. `in_force`: the lane's last status is judged by it."""

    lane_id: str
    lane: Lane
    baseline: BaselineVersion
    in_force: bool


class Baselines(Struct, frozen=True, kw_only=True):
    """Every version of every lane, newest first."""

    schema_version: Literal[1] = 1
    now_ms: int
    lane_id: str
    baselines: Page[BaselineRow]


def cuts_account(model: Model, now: Now, page: int = 1) -> CutsAccount:
    """Partitions that do not balance first."""
    rows = [_partition(account, now) for account in model.account.partitions.values()]
    rows.sort(key=lambda row: (not row.gaps_total and not row.unaccounted, row.topic, row.partition))
    reasons: dict[str, int] = {}
    for row in rows:
        for reason, n in row.not_counted.items():
            reasons[reason] = reasons.get(reason, 0) + n
    return CutsAccount(
        now_ms=now.ms, balanced=not any(row.gaps_total or row.unaccounted for row in rows),
        records=sum(row.records for row in rows), counted=sum(row.counted for row in rows), not_counted=reasons,
        partitions=page_of(rows, page, PARTITIONS_PER_PAGE),
    )  # fmt: skip


def baselines(model: Model, now: Now, lane_id: str = "", page: int = 1) -> Baselines:
    """Of one lane, or of all."""
    rows = baseline_rows(model, lane_id)
    return Baselines(now_ms=now.ms, lane_id=lane_id, baselines=page_of(rows, page, BASELINES_PER_PAGE))


def baseline_rows(model: Model, lane_id: str = "") -> list[BaselineRow]:
    """By lane, newest first; of all lanes where `lane_id` is empty."""
    rows = [
        BaselineRow(lane_id=key, lane=held.manifest.lane, baseline=held, in_force=version == _in_force(model, key))
        for key, versions in model.versions.baselines.items()
        if lane_id in ("", key)
        for version, held in versions.items()
    ]
    return sorted(rows, key=lambda row: (row.lane, -row.baseline.manifest.version))


def _in_force(model: Model, lane_id: str) -> int | None:
    status = model.statuses.get(lane_id)
    return status.baseline.version if status and status.baseline else None


def _partition(account: PartitionAccount, now: Now) -> PartitionRow:
    return PartitionRow(
        topic=account.topic, partition=account.partition, first_offset=account.first_offset,
        end_offset=account.end_offset, cuts=account.cuts, age_s=max(0, now.ms - account.closed_at_ms) / 1000,
        requests=account.requests, records=account.records, counted=account.counted_records,
        pending=account.pending_records, not_counted=dict(account.not_counted), rejected=dict(account.rejected),
        unaccounted=account.unaccounted, gaps_total=account.n_gaps, gaps=list(account.gaps),
        newest=list(account.newest)[-CUTS_SHOWN:][::-1],
    )  # fmt: skip
