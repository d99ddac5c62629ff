"""The cuts account: per input partition, whether cuts tile it, and what became of every record."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from msgspec import Struct

from stream_interp.records.cut import Cut
from stream_interp.records.lane import Lane
from stream_interp.ui.model.bounds import put, sane

MAX_CUTS = 50  # newest of one input partition
MAX_GAPS = 20
MAX_PARTITIONS = 4_096


class CutRow(Struct, frozen=True, kw_only=True):
    """One cut without its open requests. Counts are records."""

    a: int
    b: int
    read_from: int
    closed_at_ms: int
    records: int
    counted_records: int
    pending_records: int
    requests: int
    not_counted: dict[str, int]


class Gap(Struct, frozen=True, kw_only=True):
    """Where a cut did not begin at the end of the one before: `begins` > `expected` lost, < `expected` read twice."""

    expected: int
    begins: int
    closed_at_ms: int


@dataclass
class PartitionAccount:
    """One input partition since its first cut on the topic. Counts are records, but for `requests`."""

    topic: str
    partition: int
    first_offset: int
    end_offset: int = 0
    cuts: int = 0
    records: int = 0
    counted_records: int = 0
    pending_at_start: int = 0  # of the cut before the first one here, as the account of that one implies
    pending_records: int = 0
    requests: int = 0
    closed_at_ms: int = 0
    not_counted: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    gaps: deque[Gap] = field(default_factory=lambda: deque(maxlen=MAX_GAPS))
    n_gaps: int = 0
    newest: deque[CutRow] = field(default_factory=lambda: deque(maxlen=MAX_CUTS))

    @property
    def unaccounted(self) -> int:
        """Records seen that are neither counted, nor waiting, nor given a reason; 0 unless something is wrong."""
        fates = self.counted_records + self.pending_records + self.not_counted.total()
        return self.pending_at_start + self.records - fates


class Account:
    """Fed with the cuts of each input partition in their order."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], PartitionAccount] = {}
        self.lanes: dict[str, Lane] = {}
        self.refused = 0  # cuts of partitions beyond MAX_PARTITIONS

    def take(self, cut: Cut) -> None:
        """The next cut. Raises IntegrityError."""
        lanes = {lane_id: sane(count.lane) for lane_id, count in cut.lanes.items()}
        key = (cut.topic, cut.partition)
        account = self.partitions.get(key)
        if account is None:
            if len(self.partitions) >= MAX_PARTITIONS:
                self.refused += 1
                return
            account = self.partitions[key] = _first(cut)
        for lane_id, lane in lanes.items():
            put(self.lanes, lane_id, lane)
        _add(account, cut)


def _first(cut: Cut) -> PartitionAccount:
    fates = cut.counted_records + cut.pending_records + sum(cut.not_counted.values())
    return PartitionAccount(
        cut.topic, cut.partition, first_offset=cut.a, end_offset=cut.a, pending_at_start=fates - cut.records
    )


def _add(account: PartitionAccount, cut: Cut) -> None:
    if cut.a != account.end_offset:
        account.n_gaps += 1
        account.gaps.append(Gap(expected=account.end_offset, begins=cut.a, closed_at_ms=cut.closed_at_ms))
    requests = sum(count.requests for count in cut.lanes.values())
    account.end_offset, account.closed_at_ms = cut.b, cut.closed_at_ms
    account.pending_records = cut.pending_records
    account.cuts += 1
    account.records += cut.records
    account.counted_records += cut.counted_records
    account.requests += requests
    account.not_counted.update({str(reason): n for reason, n in cut.not_counted.items()})
    account.rejected.update(cut.rejected_by_reason)
    account.newest.append(
        CutRow(
            a=cut.a,
            b=cut.b,
            read_from=cut.read_from,
            closed_at_ms=cut.closed_at_ms,
            records=cut.records,
            counted_records=cut.counted_records,
            pending_records=cut.pending_records,
            requests=requests,
            not_counted={str(reason): n for reason, n in cut.not_counted.items()},
        )
    )
