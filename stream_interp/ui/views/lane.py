"""One lane: what it is judged by, how it is, and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from stream_interp.records.annotation import Annotation
from stream_interp.records.status import Health, Status
from stream_interp.ui.model.incidents import IncidentRow
from stream_interp.ui.model.model import HealthPoint, Model
from stream_interp.ui.model.versions import OrderRow
from stream_interp.ui.views.account import BaselineRow, baseline_rows
from stream_interp.ui.views.lanes import LaneRow, Now, lane_row
from stream_interp.ui.views.paging import Page, page_of

INCIDENTS_PER_PAGE = 10
SAID_SHOWN = 20
BASELINES_SHOWN = 5
SIGNALS = {
    "explained_variance": "explained variance", "l0": "L0", "norm": "mean norm", "massive_share": "massive tokens",
}  # fmt: skip


class Signal(Struct, frozen=True, kw_only=True):
    """One scalar of SAE health: now, in the baseline, and over the time that this page has seen."""

    name: str
    title: str
    now: float | None
    baseline: float | None
    points: list[tuple[int, float]]  # (Unix epoch ms, value)


class LaneView(Struct, frozen=True, kw_only=True):
    """Everything that is known of one lane."""

    schema_version: Literal[1] = 1
    now_ms: int
    row: LaneRow
    status: Status | None
    health: list[Signal]
    incidents: Page[IncidentRow]
    baselines: list[BaselineRow]
    annotations: list[Annotation]
    orders: list[OrderRow]


def lane_view(model: Model, lane_id: str, now: Now, page: int = 1) -> LaneView | None:
    """None where no topic speaks of such a lane."""
    lane = model.lanes().get(lane_id)
    if lane is None:
        return None
    status = model.statuses.get(lane_id)
    incidents = sorted(model.incidents.rows(lane_id), key=lambda row: (not row.open, -row.at_ms))
    return LaneView(
        now_ms=now.ms, row=lane_row(lane, status, now), status=status, health=signals(model, lane_id),
        incidents=page_of(incidents, page, INCIDENTS_PER_PAGE),
        baselines=baseline_rows(model, lane_id)[:BASELINES_SHOWN],
        annotations=list(model.annotations.get(lane_id, ()))[-SAID_SHOWN:][::-1],
        orders=list(model.versions.orders.get(lane_id, ()))[-SAID_SHOWN:][::-1],
    )  # fmt: skip


def signals(model: Model, lane_id: str) -> list[Signal]:
    """The signals that were measured on this lane."""
    status, curve = model.statuses.get(lane_id), model.curves.get(lane_id)
    health, points = status.health if status else Health(), curve.points if curve else ()
    drawn = (_signal(name, title, health, points) for name, title in SIGNALS.items())
    return [signal for signal in drawn if signal.now is not None or signal.baseline is not None]


def _signal(name: str, title: str, health: Health, points: Sequence[HealthPoint]) -> Signal:
    seen = [(p.at_ms, getattr(p.health, name)) for p in points]
    return Signal(
        name=name, title=title, now=getattr(health, name), baseline=getattr(health, f"{name}_baseline"),
        points=[(at_ms, value) for at_ms, value in seen if value is not None],
    )  # fmt: skip
