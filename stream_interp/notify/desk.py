"""One sink's desk: what it has been told of each story, and what is due to be told, held back or repeated. Pure.

The rules, in the order in which they are asked:

1. One notification of a story is under way at a time; what happens meanwhile waits for its outcome.
2. A silenced lane's events are held back and recorded. What was told as firing and ended meanwhile, and what is still
   open, is told when the silence ends; what began and ended inside it never is.
3. A story that opens more often than `flap_limit` within `flap_window_s` is told once as `flapping`, then held back
   like a silenced one until it is calm; an escalation goes out all the same.
4. The first notification of a story never waits. Afterwards only `updated` waits, `group_interval_s` after the last
   notification; an end, an escalation, an acknowledgement go out at once, with all that waited.
5. What began and ended more than `max_age_s` ago without being told (NOTIFY was not there) goes into one digest.
6. An open story that nobody acknowledged is repeated `repeat_interval_s` after its last notification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_interp.notify.flapping import Flaps
from stream_interp.notify.notification import Kind, Notification
from stream_interp.notify.silences import Silences
from stream_interp.notify.sinks.text import one_line
from stream_interp.notify.story import Event, Place, Story
from stream_interp.notify.wording import Wording
from stream_interp.records.alert import FIRING, Said
from stream_interp.records.delivery import Delivery
from stream_interp.settings import NotifySettings

FLAPPING = "flapping"
DETAIL_CHARACTERS = 300


class Send(NamedTuple):
    """To be sent. `place` is the newest record that it covers, for the dead letter."""

    notification: Notification
    place: Place | None


class Held(NamedTuple):
    """To be recorded as not sent."""

    event_ids: list[str]
    story: str
    detail: str


@dataclass
class Told:
    """What the sink knows of one story."""

    story: Story
    waiting: list[Event] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)  # of those waiting: recorded as held back
    told_ms: int = 0  # of the last notification, also of one that was given up; 0: none yet
    firing: bool = False  # what it said
    under_way: bool = False  # a notification of it is with the sink


class Desk:
    """What one sink is told.

    Args:
        begun_ms: when the sink first appeared: what the log took before is not for it.
        rules: of all sinks.
        silences: of all lanes.
        flaps: of all lanes.
        wording: of notifications.
    """

    def __init__(self, begun_ms: int, rules: NotifySettings, silences: Silences, flaps: Flaps, wording: Wording):
        self._begun_ms, self._rules, self._silences, self._flaps = begun_ms, rules, silences, flaps
        self._wording = wording
        self._told: dict[str, Told] = {}
        self._flapping_told: set[tuple[str, str]] = set()
        self._under_way: dict[str, list[Told]] = {}  # by notification

    @property
    def stories(self) -> Iterable[str]:
        """Those it still has to do with."""
        return self._told.keys()

    def take(self, story: Story, event: Event, routed: bool, earlier: Delivery | None) -> None:
        """An event.

        Args:
            routed: a route leads here. The end of a story goes to every sink that was told of it.
            earlier: what was done with it before a restart.
        """
        told = self._told.get(story.id)
        if told is None:
            if not routed or event.place.logged_ms < self._begun_ms or event.step == "ack":
                return
            told = self._told[story.id] = Told(story)
        told.story = story
        if earlier is None or earlier.outcome == "silenced":
            told.waiting.append(event)
            if earlier is not None:
                told.recorded.add(event.event_id)
        else:
            told.told_ms = max(told.told_ms, earlier.at_ms)
            told.firing = earlier.outcome == "delivered" and (event.step == "ack" or event.step in FIRING)
            if earlier.detail == FLAPPING:
                self._flapping_told.add(story.flap_key)

    def repeated(self, story_id: str, at_ms: int) -> None:
        """A repeat was delivered before a restart."""
        if told := self._told.get(story_id):
            told.told_ms = max(told.told_ms, at_ms)

    def due(self, now_ms: int, room: int, only: str | None = None) -> list[Send | Held]:
        """What to do now; at most `room` notifications. `only`: of one story."""
        told = [self._told[only]] if only in self._told else [] if only else list(self._told.values())
        found: list[Send | Held] = []
        for one in told:
            if decision := self._decide(one, now_ms, room):
                found.append(decision)
                room -= isinstance(decision, Send)
        if only is None and room > 0 and (missed := [one for one in told if self._is_missed(one, now_ms)]):
            found.append(self._digest(missed, now_ms))
        return found

    def done(self, notification: Notification, delivered: bool, now_ms: int) -> None:
        """The outcome of one that was sent or given up."""
        for told in self._under_way.pop(notification.id, []):
            told.told_ms, told.under_way = now_ms, False
            told.firing = delivered and notification.phase != "resolved" and notification.kind != "digest"
            self._drop_if_over(told)

    def _decide(self, told: Told, now_ms: int, room: int) -> Send | Held | None:
        story = told.story
        if told.under_way:
            return None
        if silence := self._silenced(told, now_ms):
            return self._hold(told, one_line(f"silenced by {silence.author}: {silence.reason}", DETAIL_CHARACTERS))
        flapping, kind = self._flaps.is_flapping(*story.flap_key, now_ms), _kind(told)
        if not flapping:
            self._flapping_told.discard(story.flap_key)
        elif story.flap_key in self._flapping_told:
            if not any(event.step == "escalated" for event in told.waiting):
                return self._hold(told, FLAPPING)
        elif told.waiting:
            kind = "flapping"
        if room <= 0 or self._is_missed(told, now_ms):
            return None
        if told.waiting:
            if now_ms < self._due_ms(told):
                return None
            if kind == "flapping":
                self._flapping_told.add(story.flap_key)
            openings = self._flaps.openings(*story.flap_key, now_ms)
            return self._send(told, kind, now_ms, openings)
        if self._needs_repeat(told, now_ms):
            return self._send(told, "repeat", now_ms)
        self._drop_if_over(told)
        return None

    def _due_ms(self, told: Told) -> int:
        can_wait = told.firing and all(event.step == "updated" for event in told.waiting)
        return told.told_ms + round(self._rules.group_interval_s * 1000) if can_wait else 0

    def _silenced(self, told: Told, now_ms: int) -> Said | None:
        story = told.story
        lane_id, of_lane = story.alert.lane.lane_id, story.of_lane
        silence = self._silences.active(lane_id, of_lane, now_ms)
        if silence is None and story.ended_ms is not None and not told.firing:  # it is over: judged by its own time
            silence = self._silences.active(lane_id, of_lane, story.ended_ms)
        return silence

    def _needs_repeat(self, told: Told, now_ms: int) -> bool:
        story = told.story
        is_due = now_ms >= told.told_ms + round(self._rules.repeat_interval_s * 1000)
        return is_due and bool(told.told_ms) and story.ended_ms is None and not story.acknowledged(now_ms)

    def _is_missed(self, told: Told, now_ms: int) -> bool:
        ended_ms = told.story.ended_ms
        old = ended_ms is not None and ended_ms < now_ms - round(self._rules.max_age_s * 1000)
        return old and bool(told.waiting) and not told.told_ms and not told.under_way

    def _hold(self, told: Told, detail: str) -> Held | None:
        fresh = [event.event_id for event in told.waiting if event.event_id not in told.recorded]
        told.recorded.update(fresh)
        if told.story.ended_ms is not None and not told.firing:
            told.waiting.clear()
            self._drop_if_over(told)
        return Held(fresh, told.story.id, detail) if fresh else None

    def _send(self, told: Told, kind: Kind, now_ms: int, openings: int = 0) -> Send:
        place = told.waiting[-1].place if told.waiting else None
        event_ids = [event.event_id for event in told.waiting]
        notification = self._wording.of_story(told.story, kind, event_ids, told.told_ms, now_ms, openings)
        self._start(notification, [told])
        return Send(notification, place)

    def _digest(self, missed: list[Told], now_ms: int) -> Send:
        event_ids = [event.event_id for told in missed for event in told.waiting]
        place = max((event.place for told in missed for event in told.waiting), key=lambda place: place.logged_ms)
        notification = self._wording.of_digest([told.story for told in missed], event_ids, now_ms)
        self._start(notification, missed)
        return Send(notification, place)

    def _start(self, notification: Notification, covered: list[Told]) -> None:
        self._under_way[notification.id] = covered
        for told in covered:
            told.under_way, told.waiting, told.recorded = True, [], set()

    def _drop_if_over(self, told: Told) -> None:
        if told.story.ended_ms is not None and not told.waiting and not told.under_way:
            self._told.pop(told.story.id, None)


def _kind(told: Told) -> Kind:
    return "annotation" if told.waiting and told.waiting[-1].step == "ack" and told.firing else "alert"
