"""Everything that is to be told, at all sinks: records of `interp.alerts` in, notifications per sink out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from stream_interp.notify.desk import Desk, Held, Send
from stream_interp.notify.flapping import Flaps
from stream_interp.notify.notification import Notification
from stream_interp.notify.routes import sinks_of_alert, sinks_of_process
from stream_interp.notify.silences import Silences
from stream_interp.notify.story import Event, Place, Stories, Story
from stream_interp.notify.wording import SILENT, Wording, return_id
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation
from stream_interp.records.delivery import Delivery
from stream_interp.settings import NotifySettings

Find = Callable[[str, str], Delivery | None]

SILENT_CAUSE = "detector_silent"  # what routes know a silent process by


def wording_of(notify: NotifySettings) -> Wording:
    """How these settings have it said."""
    return Wording(notify.ui_url, notify.runbook_url)


class Telling:
    """The desks of all sinks.

    Args:
        notify: the rules.
        begun_ms: of each sink, when it first appeared.
        find: what was done with an event at a sink, by `interp.deliveries`.
    """

    def __init__(self, notify: NotifySettings, begun_ms: Mapping[str, int], find: Find) -> None:
        self._notify, self._find = notify, find
        self._silences, flaps = Silences(), Flaps(notify.flap_limit, round(notify.flap_window_s * 1000))
        self._stories = Stories(flaps)
        self._desks = {
            sink: Desk(begun, notify, self._silences, flaps, wording_of(notify)) for sink, begun in begun_ms.items()
        }
        self._of_processes: dict[str, dict[str, Notification]] = {sink: {} for sink in begun_ms}

    def take(self, record: Alert | Annotation, place: Place) -> str | None:
        """A record of `interp.alerts`; the story that it moved on."""
        if isinstance(record, Alert):
            story, event = self._stories.take(record, place)
            routed = sinks_of_alert(record, self._notify.routes, self._desks)
        else:
            acknowledged = self.order(record)
            if acknowledged is None:
                return None
            story, event, routed = acknowledged, Event(record.event_id, "ack", place), frozenset[str]()
        for sink, desk in self._desks.items():
            desk.take(story, event, sink in routed, self._find(sink, event.event_id))
        return story.id

    def order(self, annotation: Annotation) -> Story | None:
        """What an operator said, as soon as it is known; the open story that an ack is about."""
        if annotation.kind == "ack":
            return self._stories.acknowledge(annotation)
        self._silences.take(annotation)
        return None

    def resume(self, delivered: Iterable[Delivery]) -> None:
        """Repeats that were sent before a restart: the next ones follow from them."""
        for delivery in delivered:
            if delivery.detail == "repeat" and delivery.sink in self._desks:
                self._desks[delivery.sink].repeated(delivery.incident_id, delivery.at_ms)

    def tell_of_process(self, notification: Notification) -> None:
        """A silent process, or its return."""
        for sink in sinks_of_process(SILENT_CAUSE, self._notify.routes, self._desks):
            if sink in self._of_processes and self._find(sink, notification.id) is None:
                self._of_processes[sink][notification.id] = notification

    def due(self, now_ms: int, rooms: Mapping[str, int], only: str | None = None) -> Iterator[tuple[str, Send | Held]]:
        """What to do now at each sink, in `rooms` notifications; `only`: of one story."""
        for sink, desk in self._desks.items():
            waiting, room = self._of_processes[sink], rooms[sink]
            for id_ in list(waiting)[:room]:
                yield sink, Send(waiting.pop(id_), None)
                room -= 1
            for decision in desk.due(now_ms, room, only):
                yield sink, decision
        if only is None:
            self._stories.forget_ended({story for desk in self._desks.values() for story in desk.stories})

    def done(self, sink: str, notification: Notification, delivered: bool, at_ms: int) -> None:
        """The outcome of one that was due."""
        self._desks[sink].done(notification, delivered, at_ms)


def told_silent(delivered: Iterable[Delivery], sinks: Container[str]) -> dict[str, str]:
    """Story → process of the deaths that some of these sinks were told of and that were not taken back there."""
    done = {(delivery.sink, delivery.event_id): delivery for delivery in delivered if delivery.sink in sinks}
    return {
        story: delivery.detail.removeprefix(SILENT)
        for (sink, story), delivery in done.items()
        if delivery.detail.startswith(SILENT) and (sink, return_id(story)) not in done
    }
