"""Making a pack: replay, report, seal, publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stream_interp.evidence.pack import card_of, files_of
from stream_interp.evidence.path import Point, points, series_of
from stream_interp.evidence.replay import Difference, Replayed, compare, replay
from stream_interp.evidence.report import render
from stream_interp.evidence.root import publish_root
from stream_interp.evidence.seal import seal
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert
from stream_interp.settings import KafkaSettings


class Made(NamedTuple):
    """A pack that lies in its folder, its root hash published."""

    root_sha256: str
    differences: list[Difference]


def make_pack(
    kafka: KafkaSettings,
    story: Story,
    folder: Path,
    made_at_ms: int,
    versions: Mapping[str, str | None],
    author: str,
    reason: str,
) -> Made:
    """Writes a story's pack into a new folder and publishes its root hash; a replay that differs is in the report.

    Raises:
        UsageError: there is something in the folder.
        IntegrityError: the checkpoint cannot be read.
        DependencyUnreachable, TransactionAborted: Kafka did not take the root hash: the folder is there, but worthless.
    """
    alerts, path = replayed(story)
    differences = compare(story.alerts, alerts)
    card = card_of(story, made_at_ms, dict(versions))
    report = render(story, card, path, differences)
    root = seal(folder, story.incident_id, story.lane, files_of(story, card, report))
    publish_root(kafka, story.lane, story.incident_id, root, made_at_ms, author, reason)
    return Made(root, differences)


def replayed(story: Story) -> tuple[list[Alert], list[Point]]:
    """The transitions that a replay tells, and its path. Raises IntegrityError if the checkpoint cannot be read."""
    alerts = list[Alert]()

    def heard(step: Replayed) -> Replayed:
        alerts.extend(step.told.alerts)
        return step

    path = list(points(map(heard, replay(story)), series_of(story.transitions)))
    return alerts, path
