"""Incidents by lane: a slim row of each, and the story behind it as the bytes it came in."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec import Struct, structs

from stream_interp.records.alert import BEGINS, ENDS, OF_LANE, Alert, AlertState, Position, Said
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.records.lane import Lane
from stream_interp.records.status import IncidentCard
from stream_interp.ui.model.bounds import put, sane

MAX_PER_LANE = 500  # the ones without news for longest go first, closed before open
MAX_EVENTS = 100  # newest of one incident
MAX_STORY_BYTES = 128 * 1024 * 1024  # of all stories together; the ones without news for longest go first


class IncidentRow(Struct, frozen=True, kw_only=True):
    """The last word on one incident, or on a lane that is blind or not to be trusted (`about = lane`)."""

    incident_id: str
    lane: Lane
    about: str
    open: bool
    transition: str
    severity: str
    cause: str
    groups: list[str]
    features_drifted: int
    opened_at_ms: int | None  # None: its first transition is not on the topic any more
    at_ms: int
    opened_request: int
    request: int
    position: Position
    ack: Said | None = None


@dataclass
class _Story:
    row: IncidentRow
    events: deque[bytes] = field(default_factory=deque)
    forgotten: int = 0


class Incidents:
    """Fed in the order of each topic; the two topics in any order between them."""

    def __init__(self) -> None:
        self._lanes: dict[str, OrderedDict[str, _Story]] = {}
        self._told: OrderedDict[str, _Story] = OrderedDict()  # stories with events, without news for longest first
        self._story_bytes = 0

    def take_alert(self, alert: Alert, raw: bytes) -> None:
        """A transition of `interp.alerts`."""
        self._remember(self._put(_row(alert)), raw)

    def take_annotation(self, annotation: Annotation, raw: bytes) -> None:
        """An ack of `interp.alerts`, if its incident is held; what is said of a lane is not kept here."""
        held: Mapping[str, _Story] = self._lanes.get(annotation.lane.lane_id, {})
        story = held.get(annotation.incident_id)
        if story is None:
            return
        if annotation.kind == "ack":
            said = Said(
                author=annotation.author, reason=annotation.reason, at_ms=annotation.at_ms, until_ms=annotation.until_ms
            )
            story.row = structs.replace(story.row, ack=said)
        self._remember(story, raw)

    def take_state(self, state: AlertState) -> None:
        """The last word of `interp.alert-state`."""
        self._put(_row(state))

    def take_card(self, lane_id: str, card: IncidentCard) -> None:
        """What a lane's status says of its open incident: more features may have drifted since its last transition."""
        held: Mapping[str, _Story] = self._lanes.get(lane_id, {})
        story = held.get(card.incident_id)
        if story is not None and story.row.open:
            story.row = structs.replace(story.row, features_drifted=card.features_drifted)

    def rows(self, lane_id: str | None = None) -> Iterable[IncidentRow]:
        """Of one lane or of all, in no order."""
        lanes = self._lanes.values() if lane_id is None else [self._lanes.get(lane_id, OrderedDict())]
        return (story.row for lane in lanes for story in lane.values())

    def lanes(self) -> dict[str, Lane]:
        """lane_id → lane of all that ever had one."""
        return {lane_id: next(iter(held.values())).row.lane for lane_id, held in self._lanes.items() if held}

    def find(self, incident_id: str) -> IncidentRow | None:
        """Its row, if it is held."""
        found = (held[incident_id] for held in self._lanes.values() if incident_id in held)
        return next((story.row for story in found), None)

    def story(self, row: IncidentRow) -> tuple[Sequence[Alert | Annotation], int]:
        """What happened, oldest first, and how many earlier events are not held any more."""
        story = self._lanes[row.lane.lane_id][row.incident_id]
        return [decode_event(raw) for raw in story.events], story.forgotten

    def _put(self, row: IncidentRow) -> _Story:
        lane = self._lanes.get(row.lane.lane_id, OrderedDict[str, _Story]())
        if (gone := put(self._lanes, row.lane.lane_id, lane)) is not None:
            while gone:
                self._forget_one(gone)
        story = lane.get(row.incident_id)
        if story is None:
            story = lane[row.incident_id] = _Story(row)
        elif row.position >= story.row.position:
            started = row.opened_at_ms if row.opened_at_ms is not None else story.row.opened_at_ms
            story.row = structs.replace(row, opened_at_ms=started, ack=row.ack or story.row.ack)
        elif story.row.opened_at_ms is None and row.opened_at_ms is not None:
            story.row = structs.replace(story.row, opened_at_ms=row.opened_at_ms)
        lane.move_to_end(row.incident_id)
        if len(lane) > MAX_PER_LANE:
            self._forget_one(lane)
        return story

    def _forget_one(self, lane: OrderedDict[str, _Story]) -> None:
        closed = next((key for key, story in lane.items() if not story.row.open), next(iter(lane)))
        story = lane.pop(closed)
        self._told.pop(closed, None)
        self._story_bytes -= sum(map(len, story.events))

    def _remember(self, story: _Story, raw: bytes) -> None:
        key = story.row.incident_id
        story.events.append(raw)
        self._story_bytes += len(raw)
        self._told[key] = story
        self._told.move_to_end(key)
        if len(story.events) > MAX_EVENTS:
            self._drop(story, 1)
        while self._story_bytes > MAX_STORY_BYTES and len(self._told) > 1:
            _, oldest = self._told.popitem(last=False)
            self._drop(oldest, len(oldest.events))

    def _drop(self, story: _Story, count: int) -> None:
        self._story_bytes -= sum(len(raw) for raw in islice(story.events, count))
        for _ in range(count):
            story.events.popleft()
        story.forgotten += count


def _row(alert: Alert) -> IncidentRow:
    return IncidentRow(
        incident_id=alert.incident_id, lane=sane(alert.lane),
        about="lane" if alert.transition in OF_LANE else "incident",
        open=alert.transition not in ENDS, transition=alert.transition, severity=alert.severity,
        cause=alert.cause_hint, groups=list(alert.groups), features_drifted=alert.features_drifted,
        opened_at_ms=alert.at_ms if alert.transition in BEGINS else None, at_ms=alert.at_ms,
        opened_request=alert.opened_request, request=alert.request, position=alert.position,
        ack=alert.ack if isinstance(alert, AlertState) else None,
    )  # fmt: skip
