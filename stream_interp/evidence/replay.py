"""Replaying a lane from a checkpoint through DETECT's own code, without Kafka. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.detect.state_codec import load_state
from stream_interp.errors import IntegrityError
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import Marker, Versioned


class Replayed(NamedTuple):
    """One record of the windows log, what it led to, and the lane after it."""

    record: Consumed
    told: Told
    state: LaneState


class Difference(NamedTuple):
    """A transition that the recording and the replay do not share; None on the side that lacks it."""

    recorded: Alert | None
    replayed: Alert | None


def replay(story: Story) -> Iterator[Replayed]:
    """The lane after every record of the story.

    Raises:
        IntegrityError: the checkpoint cannot be read, or is another lane's.
    """
    manifest = story.checkpoint.manifest
    state = load_state(story.checkpoint.body)
    if state.lane != manifest.lane:
        raise IntegrityError(
            "the checkpoint's state is of another lane than its manifest says; the pack was put together"
        )
    number, done = manifest.covered.partition, manifest.covered.offset
    partition = WindowsPartition(number, [state], manifest.read_from, done, state.settings)
    baselines = {(c.manifest.version, c.manifest.sha256): c for c in story.controls if c.manifest.kind == "baseline"}

    def find(marker: Marker) -> Versioned | None:
        return baselines.get((marker.version, marker.sha256))

    for record in story.records:
        told = Told()
        partition.take(record, find, told)
        yield Replayed(record, told, partition.lanes[state.lane.lane_id])


def compare(recorded: Sequence[Alert], replayed: Sequence[Alert]) -> list[Difference]:
    """Where they differ in id, transition, severity or order; what operators said is in neither.

    What the post-alarm job recorded is no decision: a replay does not tell it again.
    """
    recorded = [alert for alert in recorded if not alert.after_alarm]
    pairs = [
        Difference(a, b)
        for a, b in zip(
            [*recorded, *[None] * (len(replayed) - len(recorded))],
            [*replayed, *[None] * (len(recorded) - len(replayed))],
            strict=True,
        )
    ]
    return [pair for pair in pairs if _told(pair.recorded) != _told(pair.replayed)]


def require_equal(recorded: Sequence[Alert], replayed: Sequence[Alert]) -> None:
    """Returns if the replay told what the recording tells.

    Raises:
        IntegrityError: naming the first difference.
    """
    if differences := compare(recorded, replayed):
        first = differences[0]
        raise IntegrityError(
            f"the replay differs from the recorded transitions in {len(differences)} places, first: recorded "
            f"{_shown(first.recorded)}, replayed {_shown(first.replayed)}; was the pack made by another version, or "
            "the recording changed?"
        )


def _told(alert: Alert | None) -> tuple[str, str, str] | None:
    return (alert.event_id, alert.transition, alert.severity) if alert is not None else None


def _shown(alert: Alert | None) -> str:
    return "nothing" if alert is None else f"{alert.transition} {alert.severity} {alert.event_id}"
