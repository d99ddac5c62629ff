"""The fleet as one screen of a terminal, from 80 x 24 upwards. Pure: text only, whatever the names hold."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream_interp.ui.model.incidents import IncidentRow
from stream_interp.ui.text import age, cut, instant, number, percent
from stream_interp.ui.views.fleet import Fleet
from stream_interp.ui.views.lanes import LaneRow

STYLES = {
    "critical": "bold red", "warning": "yellow", "integrity_error": "bold magenta", "blind": "bold",
    "unknown": "bold", "recovering": "cyan", "learning": "cyan", "ok": "green",
}  # fmt: skip
MARKS = {
    "critical": "▲", "warning": "◆", "integrity_error": "✕", "blind": "◌", "unknown": "?", "recovering": "↻",
    "learning": "…", "ok": "●",
}  # fmt: skip
_HEAD_LINES, _FOOT_LINES = 3, 1
_INCIDENTS = 4  # shown at most, and a line under them
_WIDE = 110  # columns from which on there is room for more of them


def screen(view: Fleet, width: int, height: int | None, first: int = 0, fault: str = "") -> Group:
    """The whole screen.

    Args:
        view: with all lanes on one page.
        width: columns.
        height: lines, 24 or more; None for as many as it takes.
        first: number of the first lane shown.
        fault: why the view is not current.
    """
    incidents, lanes = _incidents(view, width), view.lanes.items
    if height is not None:
        lanes = lanes[first : first + _room(view, height)]
    parts: list[RenderableType] = [
        *_head(view, fault),
        *incidents,
        _lanes(lanes, width),
        _foot(view, first, len(lanes)),
    ]
    return Group(*parts)


def last_first(view: Fleet, height: int) -> int:
    """The `first` with which the last lane is at the bottom of the screen."""
    return max(0, view.lanes.total - _room(view, height))


def _room(view: Fleet, height: int) -> int:
    """Lanes that fit under the heading and the open incidents."""
    shown = min(len(view.open_incidents), _INCIDENTS)
    return max(1, height - _HEAD_LINES - _FOOT_LINES - (shown + 1 if shown else 0) - 1)


def _head(view: Fleet, fault: str) -> list[Text]:
    counts = Text(no_wrap=True, overflow="ellipsis")
    for state, n in view.counts.items():
        counts.append(f"{MARKS.get(state, '?')} {n} {state.replace('_', ' ')}   ", STYLES.get(state, ""))
    if not view.counts:
        counts.append("no lane yet", "dim")
    silent = sum(row.state == "silent" for row in view.processes)
    facts = [f"{view.open_total} open, {view.open_unacknowledged} unacknowledged"]
    if view.sinks_failing:
        facts.append(f"sinks failing: {cut(', '.join(view.sinks_failing), 40)}")
    facts.append(
        f"{sum(row.alive for row in view.processes)} processes alive" + (f", {silent} SILENT" if silent else "")
    )
    facts.append(f"{view.silences} silenced")
    second = Text(" · ".join(facts), no_wrap=True, overflow="ellipsis")
    third = Text(f"not current: {cut(fault)}" if fault else "", "bold red", no_wrap=True, overflow="ellipsis")
    return [counts, second, third]


def _incidents(view: Fleet, width: int) -> list[Text]:
    lines = [_incident(row, view.now_ms) for row in view.open_incidents[:_INCIDENTS]]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    hidden = view.open_total - len(lines)
    return (
        [*lines, Text(f"  and {number(hidden)} more: stream-interp alerts list" if hidden > 0 else "")] if lines else []
    )


def _incident(row: IncidentRow, now_ms: int) -> Text:
    of_lane = "blind" if row.transition == "blind" else "integrity_error"
    state = row.severity if row.about == "incident" else of_lane
    since = age((now_ms - (row.opened_at_ms if row.opened_at_ms is not None else row.at_ms)) / 1000)
    who = f"acknowledged by {cut(row.ack.author, 16)}" if row.ack else "unacknowledged"
    line = Text(f"{MARKS.get(state, '?')} ", STYLES.get(state, ""), no_wrap=True)
    line.append(f"{cut(row.cause.replace('_', ' '), 20)} {cut(row.incident_id, 16)}")
    line.append(f" {who}, {since}, {cut(row.lane.model_id, 24)}/{cut(row.lane.hook_name, 24)}", "not bold default")
    if row.about == "incident":
        line.append(f", {number(row.features_drifted)} features", "not bold default")
    return line


def _lanes(rows: list[LaneRow], width: int) -> Table:
    table = Table(box=None, pad_edge=False, width=width, header_style="dim")
    table.add_column("state", no_wrap=True, width=15)
    table.add_column("lane", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("coverage", justify="right", no_wrap=True, width=8)
    if width >= _WIDE:
        table.add_column("requests", justify="right", no_wrap=True, width=10)
        table.add_column("lag", justify="right", no_wrap=True, width=8)
    table.add_column("as of", justify="right", no_wrap=True, width=8)
    for row in rows:
        table.add_row(*_cells(row, wide=width >= _WIDE))
    return table


def _cells(row: LaneRow, *, wide: bool) -> list[Text]:
    state = Text(f"{MARKS.get(row.state, '?')} {row.state.replace('_', ' ')}", STYLES.get(row.state, ""))
    coverage = row.coverage
    share = coverage.requests_counted / coverage.requests_seen if coverage.requests_seen else None
    more = [Text(number(row.requests)), Text(age(row.lag_age_s))] if wide else []
    silenced = "silenced; " if row.silence else ""
    return [
        state, Text(f"{cut(row.lane.model_id, 60)}/{cut(row.lane.hook_name, 60)}"),
        Text(silenced + cut(row.reason or row.learning), "dim"), Text(percent(share)), *more,
        Text(age(row.age_s)),
    ]  # fmt: skip


def _foot(view: Fleet, first: int, shown: int) -> Text:
    where = f"lanes {first + 1}–{first + shown} of {view.lanes.total}" if shown else "no lane"
    return Text(f"{instant(view.now_ms)} UTC · {where} · j k space scroll, q ends", "dim", no_wrap=True)
