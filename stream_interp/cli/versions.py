"""The baselines of all lanes, and which of them is in effect: what the baseline commands read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream_interp.cli.finding import cut, find_lane
from stream_interp.errors import IntegrityError, UsageError
from stream_interp.kafka.client import require_kafka
from stream_interp.kafka.control import TOPIC, read_controls
from stream_interp.kafka.latest import read_latest
from stream_interp.kafka.produce import require_topic
from stream_interp.records.control import Versioned, read_baseline
from stream_interp.records.envelope import rfc3339
from stream_interp.records.lane import Lane
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Versions:
    """What lies on `interp.control`, in log order, and the status of each lane as DETECT last published it."""

    controls: Sequence[Versioned]
    statuses: Mapping[str, Status]

    def baselines(self, lane_id: str = "") -> list[Versioned]:
        """Of one lane or all, by lane and version; one that cannot be read is left out with a warning."""
        found = [c for c in self.controls if c.manifest.kind == "baseline" and _can_be_read(c)]
        of_lane = [c for c in found if lane_id in ("", c.manifest.lane.lane_id)]
        return sorted(of_lane, key=lambda c: (c.manifest.lane, c.manifest.version))

    def in_effect(self, lane_id: str) -> int:
        """The version that the lane is judged by, 0 while it is judged by none or has no status."""
        status = self.statuses.get(lane_id)
        return status.baseline.version if status is not None and status.baseline is not None else 0

    def before(self, lane_id: str) -> Versioned:
        """What `rollback` goes back to: the version before the one in effect, or the newest where none is.

        Raises:
            UsageError: there is no such version.
        """
        current = self.in_effect(lane_id)
        older = [c for c in self.baselines(lane_id) if not current or c.manifest.version < current]
        if not older:
            found = f"its only one is {current}, in effect" if current else "it has none"
            raise UsageError(f"lane {lane_id} has no earlier baseline: {found}; see `stream-interp baseline list`")
        return older[-1]

    def one(self, lane_id: str, version: int) -> Versioned:
        """A baseline of a lane. Raises UsageError; it lists those that there are."""
        known = self.baselines(lane_id)
        for record in known:
            if record.manifest.version == version:
                return record
        listed = ", ".join(
            f"{c.manifest.version} ({rfc3339(c.manifest.version)} by {cut(c.manifest.author) or 'unknown'})"
            for c in known[-8:]
        )
        raise UsageError(f"lane {lane_id} has no baseline {version}; expected one of: {listed or 'none yet'}")

    def lane(self, word: str) -> Lane:
        """The lane that a word names. Raises UsageError; it lists those that there are."""
        lanes = {c.manifest.lane.lane_id: c.manifest.lane for c in self.controls}
        lanes |= {status.lane.lane_id: status.lane for status in self.statuses.values()}
        return find_lane(word, lanes.values())

    def newest(self, lane_id: str) -> int:
        """The largest version of any control record of a lane, 0 without one."""
        return max((c.manifest.version for c in self.controls if c.manifest.lane.lane_id == lane_id), default=0)


def read_versions(kafka: KafkaSettings) -> Versions:
    """All of them, now. Raises DependencyUnreachable."""
    require_kafka(kafka)
    require_topic(kafka, TOPIC)
    return Versions(read_controls(kafka), read_latest(kafka, "interp.status", Status))


def _can_be_read(record: Versioned) -> bool:
    try:
        read_baseline(record)
    except IntegrityError as error:
        log.warning("baseline %s of lane %s: %s", record.manifest.version, record.manifest.lane.lane_id, error)
        return False
    return True
