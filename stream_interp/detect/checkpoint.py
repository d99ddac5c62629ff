"""Checkpoints of one windows partition: which records `interp.state` needs now, and lanes from the records there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
from msgspec import structs

from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.errors import IntegrityError
from stream_interp.records.alert import Position
from stream_interp.records.checkpoint import (
    CheckpointManifest,
    encode_checkpoint,
    encode_manifest,
    make_checkpoint,
    newest_checkpoint,
)
from stream_interp.records.chunks import sha256
from stream_interp.records.envelope import Envelope

log = logging.getLogger(__name__)


@dataclass
class Saved:
    """What `interp.state` holds of one partition.

    Attributes:
        manifests: newest usable one by lane.
        states: lanes as they were saved.
        broken: lanes of which no slot can be used.
    """

    manifests: dict[str, CheckpointManifest] = field(default_factory=dict)
    states: list[LaneState] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def covered(self) -> int:
        """The largest position that any checkpoint covers, -1 without one."""
        return max((m.covered.offset for m in self.manifests.values()), default=-1)


def read_saved(records: Mapping[str, bytes]) -> Saved:
    """The lanes in the last value of every key of a partition of `interp.state`."""
    saved = Saved()
    for lane_id in sorted({key.partition("/")[0] for key in records}):
        try:
            found = newest_checkpoint(lane_id, records)
            if found is None:
                raise IntegrityError(f"lane {lane_id}: neither slot of its checkpoint is whole")
            saved.states.append(load_state(found.body))
            saved.manifests[lane_id] = found.manifest
        except IntegrityError as error:
            log.warning("%s", error)
            saved.broken.append(lane_id)
    return saved


def start_of(saved: Saved, done: int, low: int, high: int, where: str) -> int:
    """The offset at which to read so that every lane becomes what it was at `done`.

    Args:
        saved: from `interp.state`.
        done: position up to which everything has been told; -1 for nothing.
        low, high: the windows log begins and ends there now.
        where: the log's name, for messages.

    Raises:
        IntegrityError: the log does not have the records that this needs.
    """
    if saved.broken or (done >= 0 and not saved.manifests):
        if low == 0:
            return low
        lanes = ", ".join(saved.broken) or "all lanes"
        raise IntegrityError(
            f"{where}: no usable checkpoint of {lanes}, and the log begins at {low}, expected 0 to learn again from; "
            "go back to the version that wrote the checkpoints, or begin anew with another kafka.topic_prefix"
        )
    start = min((m.read_from for m in saved.manifests.values()), default=low)
    if start < low:
        raise IntegrityError(
            f"{where}: a checkpoint older than the windows' retention: it needs offset {start}, the log begins at "
            f"{low}; raise the topic's retention.ms, and begin anew with another kafka.topic_prefix"
        )
    if max(start - 1, done) >= high:
        raise IntegrityError(
            f"{where}: a checkpoint covers offset {done} but the log ends at {high}; the topic was made again. Delete "
            "interp.state too, or use another kafka.topic_prefix"
        )
    return start


class Checkpoints:
    """Writes the checkpoints of one partition, each lane in alternate slots, the manifest last.

    Args:
        saved: what is there already.
    """

    def __init__(self, saved: Saved) -> None:
        self._manifests = dict(saved.manifests)
        self._saved_at = {state.lane.lane_id: state.position.offset for state in saved.states}
        self._next_offset = -1

    def of_new_lanes(self, partition: WindowsPartition) -> list[Envelope]:
        """First checkpoints, so that a lane with a committed window has one."""
        new = [state for lane_id, state in partition.lanes.items() if lane_id not in self._manifests]
        return [record for state in new for record in self._whole(partition, state)]

    def of_all(self, partition: WindowsPartition) -> list[Envelope]:
        """Changed lanes whole; of the others a manifest that covers more, so that they hold no restart back."""
        if partition.next_offset == self._next_offset:
            return []
        self._next_offset = partition.next_offset
        records = []
        for lane_id, state in partition.lanes.items():
            if self._saved_at.get(lane_id) == state.position.offset:
                records.append(self._moved(partition, lane_id))
            else:
                records += self._whole(partition, state)
        return records

    def _whole(self, partition: WindowsPartition, state: LaneState) -> list[Envelope]:
        before = self._manifests.get(state.lane.lane_id)
        made = make_checkpoint(
            state.lane, before.generation + 1 if before else 0, _covered(partition), version("stream-interp"),
            sha256(msgspec.json.encode(state.settings)), dump_state(state), read_from=partition.read_from,
        )  # fmt: skip
        self._manifests[state.lane.lane_id] = made.manifest
        self._saved_at[state.lane.lane_id] = state.position.offset
        return encode_checkpoint(made)

    def _moved(self, partition: WindowsPartition, lane_id: str) -> Envelope:
        manifest = structs.replace(self._manifests[lane_id], covered=_covered(partition), read_from=partition.read_from)
        self._manifests[lane_id] = manifest
        return encode_manifest(manifest)


def _covered(partition: WindowsPartition) -> Position:
    return Position(partition=partition.number, offset=partition.done)
