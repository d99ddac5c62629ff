"""Stories: the transitions of one incident, or of one trouble of a lane, folded to what holds now. Pure.

Times named `logged_ms` are the log's; `at_ms` of an alert is the window's and serves for display alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stream_interp.notify.flapping import Flaps
from stream_interp.records.alert import BEGINS, FIRING, OF_LANE, Alert, Said
from stream_interp.records.annotation import Annotation


class Place(NamedTuple):
    """Where a record lies in `interp.alerts`, and when the log took it."""

    partition: int
    offset: int
    logged_ms: int


class Event(NamedTuple):
    """One step of a story: a transition, or `ack`."""

    event_id: str
    step: str
    place: Place


@dataclass
class Story:
    """What holds now.

    Attributes:
        alert: the newest.
        started_at_ms: of the window that opened it.
        cause: at its opening, for flap damping.
        ended_ms: when the log took its end; None while it is open.
        ack: what an operator said of it.
    """

    alert: Alert
    started_at_ms: int
    cause: str
    ended_ms: int | None = None
    ack: Said | None = None

    @property
    def id(self) -> str:
        """The incident's, or the one of a lane's trouble, which is the same each time."""
        return self.alert.incident_id

    @property
    def flap_key(self) -> tuple[str, str]:
        """Lane and cause: what opens again and again is one thing, whatever its incidents are called."""
        return self.alert.lane.lane_id, self.cause

    @property
    def of_lane(self) -> bool:
        """`blind` or `integrity_error`: a silence covers it for a day only."""
        return self.alert.transition in OF_LANE

    def phase(self, now_ms: int) -> Literal["firing", "acknowledged", "resolved"]:
        """As sinks know it."""
        if self.ended_ms is not None:
            return "resolved"
        return "acknowledged" if self.acknowledged(now_ms) else "firing"

    def acknowledged(self, now_ms: int) -> bool:
        """Somebody takes care of it."""
        return self.ack is not None and (not self.ack.until_ms or now_ms < self.ack.until_ms)


class Stories:
    """All that are open, and those that ended and that some sink still has to hear of."""

    def __init__(self, flaps: Flaps) -> None:
        self._stories: dict[str, Story] = {}
        self._acks: dict[str, Said] = {}  # by incident, also of those not read yet
        self._flaps = flaps

    def take(self, alert: Alert, place: Place) -> tuple[Story, Event]:
        """The story after a transition."""
        story = self._stories.get(alert.incident_id)
        firing = alert.transition in FIRING
        if story is None or (firing and story.ended_ms is not None):
            ack = self._acks.get(alert.incident_id) if story is None and alert.transition not in OF_LANE else None
            fresh = Story(alert, alert.at_ms, alert.cause_hint, ack=ack)
            story = fresh if story is None else _again(story, fresh)
            self._stories[alert.incident_id] = story
        story.alert = alert
        story.ended_ms = None if firing else place.logged_ms
        if alert.transition in BEGINS:
            self._flaps.began(*story.flap_key, place.logged_ms)
        elif not firing:
            self._flaps.ended(*story.flap_key)
        return story, Event(alert.event_id, alert.transition, place)

    def acknowledge(self, annotation: Annotation) -> Story | None:
        """Takes an ack; its story, if that is known and open."""
        said = Said(
            author=annotation.author, reason=annotation.reason, at_ms=annotation.at_ms, until_ms=annotation.until_ms
        )
        newest = max(said, self._acks.get(annotation.incident_id, said), key=lambda ack: ack.at_ms)
        self._acks[annotation.incident_id] = newest
        story = self._stories.get(annotation.incident_id)
        if story is None or story.ended_ms is not None:
            return None
        story.ack = newest
        return story

    def forget_ended(self, still_needed: Collection[str]) -> None:
        """Drops what ended and nobody has to hear of."""
        for story_id in [s.id for s in self._stories.values() if s.ended_ms is not None and s.id not in still_needed]:
            del self._stories[story_id]
            self._acks.pop(story_id, None)


def _again(story: Story, fresh: Story) -> Story:
    """The same trouble once more; sinks hold on to the object."""
    story.started_at_ms, story.cause, story.ack = fresh.started_at_ms, fresh.cause, None
    return story
