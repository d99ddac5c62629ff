"""What anyone can see from outside: the status in Redis, the alerts on their topic."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from stream_interp.kafka.subscribe import AlertSubscriber
from stream_interp.records.alert import Alert
from stream_interp.status.client import StatusClient
from stream_interp.status.judge import LaneStatus, ModelStatus

_STATUS_EVERY_S = 0.25
_WINDOW_END = re.compile(r"\[\d+,(\d+)\)$")


class Heard(NamedTuple):
    """An alert, and when it was handed out, monotonic seconds."""

    alert: Alert
    at_s: float


def applications_behind(alert: Alert) -> int | None:
    """How many applications had been streamed up to the end of the window that caused the alert; None without one.

    The topic is new and has one input partition, and an application is one request of one record. So the offsets of
    the cut `[a, b)` that the window lies in count applications: those numbered a + 1 … b, whether or not they fed
    baseline or tests. It is the word of the alert itself, not of the clock that we heard it by.
    """
    end = _WINDOW_END.search(alert.window_id)
    return int(end[1]) if end else None


class Watch:
    """Reads both. `alerts` are all of the cluster's, in order."""

    def __init__(
        self, client: StatusClient, subscriber: AlertSubscriber, model_id: str, clock: Callable[[], float]
    ) -> None:
        self.alerts: list[Heard] = []
        self._client, self._subscriber, self._model_id, self._clock = client, subscriber, model_id, clock
        self.status: ModelStatus = client.get(model_id)
        self._next_status_s = clock()
        self._reported = 0

    @property
    def lane(self) -> LaneStatus | None:
        """The demo's only lane, once there is a status of it."""
        return self.status.lanes[0] if self.status.lanes else None

    @property
    def reported(self) -> int:
        """Applications that DETECT has accounted for."""
        return self._reported

    def look(self, timeout_s: float) -> Alert | None:
        """Waits for an alert up to `timeout_s`; refreshes the status when it is due."""
        alert = self._subscriber.poll(timeout_s)
        if alert is not None:
            self.alerts.append(Heard(alert, self._clock()))
        if self._clock() >= self._next_status_s:
            self.refresh()
        return alert

    def refresh(self) -> ModelStatus:
        """The status now."""
        self.status = self._client.get(self._model_id)
        self._next_status_s = self._clock() + _STATUS_EVERY_S
        if self.lane is not None:
            self._reported = max(self._reported, self.lane.coverage.requests_seen)
        return self.status
