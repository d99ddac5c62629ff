"""Exact paths of incidents, made on demand by replaying them, one at a time, beside the page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from msgspec import structs

from stream_interp.errors import StreamInterpError
from stream_interp.evidence.collect import collect
from stream_interp.evidence.path import Point, incident_path
from stream_interp.records.alert import Position
from stream_interp.settings import KafkaSettings
from stream_interp.ui.views.incident import IncidentView
from stream_interp.ui.views.paths import health_of_replay, paths_of_replay

MAX_KEPT = 32  # incidents, the ones looked at longest ago go first
AGAIN_S = 60.0  # an open incident that somebody looks at is replayed so often
MAX_WINDOW_BYTES = 128 * 1024 * 1024  # of one replay, in memory while it runs
BEING_MADE = "it is being computed and comes with the next refresh"
_BUSY = "another incident is being computed; it comes after that one"


class _Kept(NamedTuple):
    position: Position  # the incident's last transition then
    points: Sequence[Point]
    why_not: str
    made_s: float  # monotonic


class Replays:
    """The replays of the incidents that people look at.

    Args:
        replay: incident id → a point for every window, oldest first; may take long, and may raise StreamInterpError.
        now_s: monotonic clock.
    """

    def __init__(self, replay: Callable[[str], Sequence[Point]], now_s: Callable[[], float] = time.monotonic) -> None:
        self._replay, self._now_s = replay, now_s
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._running, self._lock = "", threading.Lock()
        self._worker = ThreadPoolExecutor(1, "ui-replay")

    def improve(self, view: IncidentView) -> IncidentView:
        """The view with exact paths and health where they are there; else it says why not, and they are begun."""
        if view.row.about != "incident":
            return view
        with self._lock:
            kept = self._kept.get(view.row.incident_id)
            why = self._begin(view) if kept is None or self._is_old(view, kept) else ""
            if kept is None:
                return _without(view, why)
            self._kept.move_to_end(view.row.incident_id)
        return _with(view, kept.points) if kept.points else _without(view, kept.why_not)

    def close(self) -> None:
        """Begins nothing more; a replay that runs may end behind it."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _is_old(self, view: IncidentView, kept: _Kept) -> bool:
        goes_on = view.row.open and self._now_s() - kept.made_s > AGAIN_S
        return goes_on or kept.position != view.row.position

    def _begin(self, view: IncidentView) -> str:
        incident_id, position = view.row.incident_id, view.row.position
        if self._running:
            return BEING_MADE if self._running == incident_id else _BUSY
        self._running = incident_id
        self._worker.submit(self._make, incident_id, position)
        return BEING_MADE

    def _make(self, incident_id: str, position: Position) -> None:
        points, why_not = list[Point](), "nothing of it could be replayed"
        try:
            points = list(self._replay(incident_id))
        except StreamInterpError as error:
            why_not = str(error)
        except Exception as error:  # whatever lies on the topics must not end the worker
            why_not = f"{type(error).__name__}: {error}"
        with self._lock:
            self._running = ""
            self._kept[incident_id] = _Kept(position, points, why_not, self._now_s())
            self._kept.move_to_end(incident_id)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)


def replay_from(kafka: KafkaSettings) -> Callable[[str], Sequence[Point]]:
    """Collects an incident from the topics and replays it."""
    return lambda incident_id: incident_path(collect(kafka, incident_id, MAX_WINDOW_BYTES))


def _with(view: IncidentView, points: Sequence[Point]) -> IncidentView:
    return structs.replace(view, paths=paths_of_replay(points), health=health_of_replay(view.health, points))


def _without(view: IncidentView, why: str) -> IncidentView:
    return structs.replace(view, paths=structs.replace(view.paths, why=why))
