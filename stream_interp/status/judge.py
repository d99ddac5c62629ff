"""From what Redis holds to one answer about a model. Pure: no Redis, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct, field, structs

from stream_interp.errors import IntegrityError
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane
from stream_interp.records.status import WORST_FIRST, State, Status

Answer = Literal[State, "unknown"]

_BLIND = WORST_FIRST.index("blind") + 1
ANSWERS_WORST_FIRST: tuple[str, ...] = (*WORST_FIRST[:_BLIND], "unknown", *WORST_FIRST[_BLIND:])


class LaneEntry(Struct, frozen=True, kw_only=True):
    """One lane in the index of its model."""

    lane: Lane
    created_ms: int  # closed_at of the lane's first window
    seen_ms: int  # as_of of its latest status


class Held(NamedTuple):
    """The hash of one lane, as far as the answer needs it. None where a field is missing."""

    json: bytes | None
    stale_after_ms: int | None


class LaneStatus(Status, frozen=True, kw_only=True):
    """A fresh status and its age when it was read, seconds."""

    age_s: float


class ModelStatus(Struct, frozen=True, kw_only=True):
    """The answer about a model: the worst of its lanes, and `unknown` where any of them is silent.

    `lanes` are the fresh ones, worst first; `silent` are lanes of the same revision without a fresh status;
    `age_s` is that of the oldest status found, None where there is none.
    """

    tenant: str
    model_id: str
    model_revision: str | None
    state: Answer
    reason: str
    age_s: float | None = None
    lanes: list[LaneStatus] = field(default_factory=list)
    silent: list[Lane] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """True only where every lane is ok: learning, recovering and unknown are not."""
        return self.state == "ok"


def unknown(tenant: str, model_id: str, model_revision: str | None, reason: str) -> ModelStatus:
    """The answer where there is none."""
    return ModelStatus(tenant=tenant, model_id=model_id, model_revision=model_revision, state="unknown", reason=reason)


def newest_revision(entries: Sequence[LaneEntry]) -> str:
    """The revision created last; a revision is as old as its first lane. `entries` is not empty."""
    created: dict[str, int] = {}
    for entry in entries:
        revision = entry.lane.model_revision
        created[revision] = min(entry.created_ms, created.get(revision, entry.created_ms))
    return max(created, key=lambda revision: (created[revision], revision))


def judge(entries: Sequence[LaneEntry], held: Mapping[str, Held], now_ms: float) -> ModelStatus:
    """The worst of these lanes of one model and revision.

    Args:
        entries: at least one.
        held: lane_id → what Redis holds of it.
        now_ms: Unix epoch, milliseconds.
    """
    fresh: list[LaneStatus] = []
    silent: list[tuple[Lane, str]] = []
    ages_s: list[float] = []
    for lane in (entry.lane for entry in entries):
        status, why = _read(held.get(lane.lane_id, Held(None, None)), now_ms)
        if status is not None:
            ages_s.append(status.age_s)
        if status is None or why:
            silent.append((lane, why))
        else:
            fresh.append(status)
    fresh.sort(key=lambda status: (WORST_FIRST.index(status.state), status.lane))
    states: list[Answer] = [status.state for status in fresh]
    if silent:
        states.append("unknown")
    return ModelStatus(
        tenant=entries[0].lane.tenant,
        model_id=entries[0].lane.model_id,
        model_revision=entries[0].lane.model_revision,
        state=min(states, key=ANSWERS_WORST_FIRST.index),
        reason=_reason(fresh, silent),
        age_s=max(ages_s, default=None),
        lanes=fresh,
        silent=[lane for lane, _ in silent],
    )


def _read(held: Held, now_ms: float) -> tuple[LaneStatus | None, str]:
    """The status, and why it does not count (empty where it does)."""
    if held.json is None or held.stale_after_ms is None:
        return None, "no status for three intervals: is DETECT running, and on which partitions?"
    try:
        status = read_json(held.json, Status)
    except IntegrityError as error:
        return None, f"{error}"
    age_ms = max(0.0, now_ms - status.as_of_ms)
    lane_status = LaneStatus(**structs.asdict(status), age_s=age_ms / 1000)
    if age_ms > held.stale_after_ms:
        return lane_status, f"last status {age_ms / 1000:.0f} s old: is DETECT running, do the clocks agree?"
    return lane_status, ""


def _reason(fresh: Sequence[LaneStatus], silent: Sequence[tuple[Lane, str]]) -> str:
    parts = [f"{lane.hook_name} is unknown: {why}" for lane, why in silent]
    worse = [status for status in fresh if status.state != "ok"]
    parts += [f"{s.lane.hook_name} is {s.state}" + (f": {s.reason}" if s.reason else "") for s in worse]
    return "; ".join(parts)


def read_entry(value: bytes) -> LaneEntry | None:
    """An entry of the index; None for what another version wrote."""
    try:
        return msgspec.json.decode(value, type=LaneEntry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
