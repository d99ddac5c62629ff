"""All that is shown, held in bounded memory. Pure: fed with consumed records, asked by the views."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from msgspec import Struct

from stream_interp.errors import IntegrityError
from stream_interp.records.alert import Alert, AlertState
from stream_interp.records.annotation import Annotation, decode_event
from stream_interp.records.consumed import Consumed
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import read_json
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.records.lane import Lane
from stream_interp.records.status import Health, Status
from stream_interp.ui.model.account import Account
from stream_interp.ui.model.bounds import put, sane
from stream_interp.ui.model.curve import Curve
from stream_interp.ui.model.incidents import Incidents
from stream_interp.ui.model.versions import Versions

MAX_LANES = 5_000
MAX_PROCESSES = 512  # the ones silent for longest go first
MAX_ANNOTATIONS = 100  # newest of one lane


class HealthPoint(Struct, frozen=True, kw_only=True):
    """A lane's recent health at the close of one of its windows."""

    at_ms: int
    health: Health


class Model:
    """The newest of everything, within the bounds that the modules of this package state."""

    def __init__(self) -> None:
        self.statuses: dict[str, Status] = {}
        self.curves: dict[str, Curve[HealthPoint]] = {}
        self.annotations: dict[str, deque[Annotation]] = {}
        self.heartbeats: dict[str, Heartbeat] = {}
        self.incidents, self.account, self.versions = Incidents(), Account(), Versions()
        self.unreadable: Counter[str] = Counter()  # by topic: records of another version, or damaged
        self.read: Counter[str] = Counter()
        self._takers: dict[str, Callable[[Consumed], None]] = {
            "interp.status": self._take_status,
            "interp.alert-state": self._take_alert_state,
            "interp.alerts": self._take_event,
            "interp.cuts": lambda record: self.account.take(read_json(record.value, Cut)),
            "interp.heartbeat": self._take_heartbeat,
            "interp.control": self._take_control,
        }

    @property
    def topics(self) -> tuple[str, ...]:
        """What it wants to be fed with, without prefix."""
        return tuple(self._takers)

    def take(self, topic: str, record: Consumed) -> None:
        """One record of one of `topics`; what cannot be read is counted and left out."""
        self.read[topic] += 1
        try:
            self._takers[topic](record)
        except (IntegrityError, UnicodeDecodeError):
            self.unreadable[topic] += 1

    def lanes(self) -> dict[str, Lane]:
        """lane_id → every lane that any topic speaks of."""
        with_status = {lane_id: status.lane for lane_id, status in self.statuses.items()}
        return self.account.lanes | self.versions.lanes | self.incidents.lanes() | with_status

    def _take_status(self, record: Consumed) -> None:
        if record.value is None:
            self.statuses.pop((record.key or b"").decode(), None)
            return
        status = read_json(record.value, Status)
        lane_id = sane(status.lane).lane_id
        before = self.statuses.get(lane_id)
        if before is None and len(self.statuses) >= MAX_LANES:
            oldest = min(self.statuses, key=lambda key: self.statuses[key].as_of_ms)
            del self.statuses[oldest]
            self.curves.pop(oldest, None)
        self.statuses[lane_id] = status
        if status.incident is not None:
            self.incidents.take_card(lane_id, status.incident)
        if before is None or status.closed_at_ms > before.closed_at_ms:
            self.curves.setdefault(lane_id, Curve()).add(HealthPoint(at_ms=status.closed_at_ms, health=status.health))

    def _take_alert_state(self, record: Consumed) -> None:
        if record.value is not None:
            self.incidents.take_state(read_json(record.value, AlertState))

    def _take_event(self, record: Consumed) -> None:
        event, raw = decode_event(record.value), record.value or b""
        if isinstance(event, Alert):
            self.incidents.take_alert(event, raw)
            return
        lane_id = sane(event.lane).lane_id
        said = self.annotations.get(lane_id, deque[Annotation](maxlen=MAX_ANNOTATIONS))
        said.append(event)
        put(self.annotations, lane_id, said)
        self.incidents.take_annotation(event, raw)

    def _take_heartbeat(self, record: Consumed) -> None:
        beat = read_json(record.value, Heartbeat)
        self.heartbeats[beat.process_id] = beat
        if len(self.heartbeats) > MAX_PROCESSES:
            del self.heartbeats[min(self.heartbeats, key=lambda key: self.heartbeats[key].as_of_ms)]

    def _take_control(self, record: Consumed) -> None:
        self.versions.take((record.key or b"").decode(), record.value, record.timestamp_ms)
