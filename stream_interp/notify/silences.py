"""Silences of lanes: whose notifications are held back, when, and who said so. Pure."""

from __future__ import annotations

from stream_interp.records.alert import Said
from stream_interp.records.annotation import Annotation

DAY_MS = 24 * 3_600_000
LONGEST_MS = 7 * DAY_MS  # a silence must expire, whatever the record says
LONGEST_OF_LANE_MS = DAY_MS  # for `blind` and `integrity_error`: nobody may look away from them for longer


class Silences:
    """Every silence and every end of one, so that the past can be judged too."""

    def __init__(self) -> None:
        self._silences: dict[str, dict[str, Said]] = {}  # by lane, then by event
        self._ends: dict[str, dict[str, int]] = {}

    def take(self, annotation: Annotation) -> None:
        """A silence or its end, in any order and any number of times."""
        lane_id, at_ms = annotation.lane.lane_id, annotation.at_ms
        if annotation.kind == "silence":
            until_ms = min(annotation.until_ms, at_ms + LONGEST_MS)  # without an end it is over at once, as for DETECT
            said = Said(author=annotation.author, reason=annotation.reason, at_ms=at_ms, until_ms=until_ms)
            self._silences.setdefault(lane_id, {})[annotation.event_id] = said
        elif annotation.kind == "unsilence":
            self._ends.setdefault(lane_id, {})[annotation.event_id] = at_ms

    def active(self, lane_id: str, of_lane: bool, now_ms: int) -> Said | None:
        """Who silenced the lane, if it is silent now. `of_lane`: asked for `blind` or `integrity_error`."""
        longest_ms = LONGEST_OF_LANE_MS if of_lane else LONGEST_MS
        ended_ms = max((at_ms for at_ms in self._ends.get(lane_id, {}).values() if at_ms <= now_ms), default=-1)
        for said in self._silences.get(lane_id, {}).values():
            in_time = said.at_ms <= now_ms < min(said.until_ms, said.at_ms + longest_ms)
            if in_time and ended_ms < said.at_ms:
                return said
        return None
