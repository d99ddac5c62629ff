"""The live table, and the line that stands for it where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from stream_interp.demo.traffic import Traffic
from stream_interp.demo.watch import Watch
from stream_interp.records.alert import FeatureDrift
from stream_interp.status.judge import LaneStatus

TOP_FEATURES = 3
_COLUMNS = ("lane", "state", "coverage", "requests/s", "in flight", "top features")
_STYLES = {"ok": "green", "learning": "cyan", "warning": "yellow", "critical": "bold red"}


def live_table(watch: Watch, traffic: Traffic, rate: float, meanings: Sequence[str]) -> Table:
    """One row a lane, as Redis has it.

    Args:
        rate: applications per second that DETECT accounted for lately.
        meanings: words for each feature.
    """
    table = Table(title="Status in Redis", title_justify="left", expand=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for lane in watch.status.lanes:
        table.add_row(*_cells(lane, traffic.sent - watch.reported, rate, meanings), style=_STYLES.get(lane.state))
    if not watch.status.lanes:
        table.add_row("none yet", watch.status.state, "-", "-", str(traffic.sent), "-")
    return table


def line(watch: Watch, traffic: Traffic, rate: float, meanings: Sequence[str]) -> str:
    """The same in one line."""
    if watch.lane is None:
        return f"no lane yet, {traffic.sent} applications streamed"
    cells = _cells(watch.lane, traffic.sent - watch.reported, rate, meanings)
    return ", ".join(f"{column} {cell}" for column, cell in zip(_COLUMNS, cells, strict=True) if cell != "-")


def describe(feature: FeatureDrift, meanings: Sequence[str]) -> str:
    """One feature: its number, what it stands for, and its rate then and now."""
    rates = f"{feature.rate_baseline:.0%} → {feature.rate_now:.0%}"
    return f"#{feature.feature} ({meanings[feature.feature]}) {rates}"


def _cells(lane: LaneStatus, in_flight: int, rate: float, meanings: Sequence[str]) -> list[str]:
    state = f"{lane.state} ({lane.learning})" if lane.learning else lane.state
    seen, counted = lane.coverage.requests_seen, lane.coverage.requests_counted
    features = lane.incident.features[:TOP_FEATURES] if lane.incident else []
    return [
        f"{lane.lane.model_id}/{lane.lane.hook_name}",
        state,
        f"{counted / seen:.1%} of {seen}" if seen else "-",
        f"{rate:.0f}",
        str(in_flight),
        "; ".join(describe(feature, meanings) for feature in features) or "-",
    ]
