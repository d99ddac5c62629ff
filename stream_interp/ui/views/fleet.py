"""The first view: every lane, worst first, and what is open."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_interp.status.judge import ANSWERS_WORST_FIRST, Answer
from stream_interp.ui.model.incidents import IncidentRow
from stream_interp.ui.model.model import Model
from stream_interp.ui.views.lanes import LaneRow, Now, lane_rows
from stream_interp.ui.views.paging import Page, page_of
from stream_interp.ui.views.processes import ProcessRow, process_rows

LANES_PER_PAGE = 60
OPEN_SHOWN = 8
INCIDENTS_PER_PAGE = 50


class Fleet(Struct, frozen=True, kw_only=True):
    """All lanes at a glance. `state` is the worst of them; without any lane it is `unknown`."""

    schema_version: Literal[1] = 1
    now_ms: int
    state: Answer
    counts: dict[str, int]  # lanes by state, worst first, of all lanes
    lanes: Page[LaneRow]
    open_incidents: list[IncidentRow]  # unacknowledged first, then critical, drift, the newest
    open_total: int
    open_unacknowledged: int
    silences: int
    sinks_failing: list[str]
    processes: list[ProcessRow]
    query: str


class IncidentList(Struct, frozen=True, kw_only=True):
    """Incidents of all lanes or of one, newest first, open ones before."""

    schema_version: Literal[1] = 1
    now_ms: int
    lane_id: str
    only_open: bool
    incidents: Page[IncidentRow]


def fleet(model: Model, now: Now, page: int = 1, query: str = "", size: int = LANES_PER_PAGE) -> Fleet:
    """The fleet as seen now; `query` keeps lanes in whose names or state it occurs."""
    rows = lane_rows(model, now)
    counts = {state: n for state in ANSWERS_WORST_FIRST if (n := sum(row.state == state for row in rows))}
    open_rows = sorted((row for row in model.incidents.rows() if row.open), key=_urgent_first)
    processes = process_rows(model, now)
    failing = {name for row in processes if row.alive for name in row.sinks_failing}
    return Fleet(
        now_ms=now.ms, state=_worst(counts), counts=counts,
        lanes=page_of([row for row in rows if _matches(row, query)], page, size),
        open_incidents=open_rows[:OPEN_SHOWN], open_total=len(open_rows),
        open_unacknowledged=sum(row.ack is None for row in open_rows),
        silences=sum(row.silence is not None for row in rows),
        sinks_failing=sorted(failing.union(*(s.sinks_failing for s in model.statuses.values()))),
        processes=processes, query=query,
    )  # fmt: skip


def incident_list(
    model: Model, now: Now, lane_id: str = "", only_open: bool = False, page: int = 1, size: int = INCIDENTS_PER_PAGE
) -> IncidentList:
    """A page of incidents."""
    rows = [row for row in model.incidents.rows(lane_id or None) if row.open or not only_open]
    rows.sort(key=lambda row: (not row.open, -row.at_ms))
    return IncidentList(now_ms=now.ms, lane_id=lane_id, only_open=only_open, incidents=page_of(rows, page, size))


def _worst(counts: dict[str, int]) -> Answer:
    present: list[Answer] = [state for state in ANSWERS_WORST_FIRST if state in counts]  # type: ignore[misc]
    return present[0] if present else "unknown"


def _urgent_first(row: IncidentRow) -> tuple[bool, bool, bool, int]:
    """Drift before blindness: a lane that is blind shows among the lanes, its drift here alone."""
    return row.ack is not None, row.severity != "critical", row.about != "incident", -row.at_ms


def _matches(row: LaneRow, query: str) -> bool:
    lane = row.lane
    names = (row.state, row.lane_id, lane.tenant, lane.model_id, lane.hook_name, lane.model_revision)
    return all(any(word in name.lower() for name in names) for word in query.lower().split())
