"""Checkpoints of one windows partition: which records `interp.state` needs now, and lanes from the records there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version

import msgspec
from msgspec import structs

from stream_interp.detect.alerts import incident_id
from stream_interp.detect.partition import WindowsPartition
from stream_interp.detect.state import LaneState
from stream_interp.detect.state_codec import dump_state, load_state, load_untested
from stream_interp.detect.step import new_lane
from stream_interp.errors import IntegrityError
from stream_interp.records.alert import Alert, Position
from stream_interp.records.checkpoint import (
    SLOTS,
    Checkpoint,
    CheckpointManifest,
    copy_manifests,
    encode_checkpoint,
    encode_manifest,
    encode_tombstones,
    is_copy,
    make_checkpoint,
    whole_checkpoints,
)
from stream_interp.records.chunks import sha256
from stream_interp.records.envelope import Envelope

_CODE_VERSION = version("stream-interp")  # looking it up reads files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A checkpoint that was written, and the state in it: states never change, so this is no copy."""

    manifest: CheckpointManifest
    state: LaneState


@dataclass
class Saved:
    """What `interp.state` holds of one partition.

    Attributes:
        manifests: newest usable one by lane.
        states: lanes as they were saved.
        older: the checkpoint in the other slot, where it can be read; its state is without tests.
        broken: lanes of which no slot can be used.
        copies: manifests of the copies for incidents.
    """

    manifests: dict[str, CheckpointManifest] = field(default_factory=dict)
    states: list[LaneState] = field(default_factory=list)
    older: dict[str, Kept] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    copies: list[CheckpointManifest] = field(default_factory=list)

    @property
    def covered(self) -> int:
        """The largest position that any checkpoint covers, -1 without one."""
        return max((m.covered.offset for m in self.manifests.values()), default=-1)


def read_saved(records: Mapping[str, bytes]) -> Saved:
    """The lanes in the last value of every key of a partition of `interp.state`."""
    saved = Saved()
    for lane_id in sorted({key.partition("/")[0] for key in records if not is_copy(key)}):
        try:
            found = list(whole_checkpoints(lane_id, records))
            if not found:
                raise IntegrityError(f"lane {lane_id}: neither slot of its checkpoint is whole")
            saved.states.append(load_state(found[0].body))
            saved.manifests[lane_id] = found[0].manifest
        except IntegrityError as error:
            log.warning("%s", error, extra={"lane_id": lane_id})
            saved.broken.append(lane_id)
            continue
        with suppress(IntegrityError):  # written by another version: an incident will do with the newest
            for older in found[1:]:
                saved.older[lane_id] = Kept(older.manifest, load_untested(older.body))
    try:
        saved.copies = copy_manifests(records)
    except IntegrityError as error:
        log.warning("copies for incidents are not removed: %s", error)
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
        start: where reading starts.
        low: the windows log begins there now; copies for incidents that need what lies below it are removed.
    """

    def __init__(self, saved: Saved, start: int = 0, low: int = 0) -> None:
        newest = {s.lane.lane_id: Kept(saved.manifests[s.lane.lane_id], s) for s in saved.states}
        self._kept = {k: [kept, *([saved.older[k]] if k in saved.older else [])] for k, kept in newest.items()}
        self._expired = [manifest for manifest in saved.copies if manifest.covered.offset + 1 < low]
        self._read_from, self._next_offset = start, -1

    def of_incidents(self, partition: WindowsPartition, alerts: Iterable[Alert]) -> list[Envelope]:
        """For every incident that opens, a copy of what to replay it from; ask before a newer checkpoint is made."""
        opened = (a for a in alerts if a.transition == "opened" and a.position.partition == partition.number)
        return [r for alert in opened for r in encode_checkpoint(self._copy(partition, alert))]

    def of_new_lanes(self, partition: WindowsPartition) -> list[Envelope]:
        """First checkpoints, so that a lane with a committed window has one."""
        new = [state for lane_id, state in partition.lanes.items() if lane_id not in self._kept]
        self._read_from = partition.read_from
        return [record for state in new for record in self._whole(partition, state)]

    def of_all(self, partition: WindowsPartition) -> list[Envelope]:
        """Changed lanes whole; of the others a manifest that covers more, so that they hold no restart back."""
        if partition.next_offset == self._next_offset:
            return []
        self._next_offset, self._read_from = partition.next_offset, partition.read_from
        records = [r for manifest in self._expired for r in encode_tombstones(manifest)]
        self._expired = []
        for lane_id, state in partition.lanes.items():
            if lane_id in self._kept and self._kept[lane_id][0].state.position.offset == state.position.offset:
                records.append(self._moved(partition, lane_id))
            else:
                records += self._whole(partition, state)
        return records

    def _whole(self, partition: WindowsPartition, state: LaneState) -> list[Envelope]:
        kept = self._kept.get(state.lane.lane_id, [])
        generation = kept[0].manifest.generation + 1 if kept else 0
        made = _checkpoint(state, generation, _covered(partition), partition.read_from)
        self._kept[state.lane.lane_id] = [Kept(made.manifest, state), *kept][:SLOTS]
        return encode_checkpoint(made)

    def _moved(self, partition: WindowsPartition, lane_id: str) -> Envelope:
        newest, *older = self._kept[lane_id]
        manifest = structs.replace(newest.manifest, covered=_covered(partition), read_from=partition.read_from)
        self._kept[lane_id] = [Kept(manifest, newest.state), *older]
        return encode_manifest(manifest)

    def _copy(self, partition: WindowsPartition, alert: Alert) -> Checkpoint:
        state = partition.lanes[alert.lane.lane_id]
        kept = self._kept.get(alert.lane.lane_id) or [self._unborn(partition, state)]
        before = [k for k in kept if _is_before(k.state, alert)]
        chosen = before[0] if before else kept[-1]
        number = next(n for n in range(state.incidents, 0, -1) if incident_id(state.lane, n) == alert.incident_id)
        m = chosen.manifest
        return _checkpoint(chosen.state, m.generation, m.covered, m.read_from, number, before_change=bool(before))

    def _unborn(self, partition: WindowsPartition, state: LaneState) -> Kept:
        """Of a lane that began, learned and opened an incident in one poll: nothing was known of it before."""
        covered = Position(partition=partition.number, offset=self._read_from - 1)
        unborn = new_lane(state.lane, state.settings, covered)
        return Kept(_checkpoint(unborn, 0, covered, self._read_from).manifest, unborn)


def _is_before(state: LaneState, opened: Alert) -> bool:
    """Whether a state older than the opening of an incident is older than the estimated change, too."""
    if state.phase != "armed" or state.baseline is None or state.baseline.header.version != opened.baseline_version:
        return True
    return state.requests <= opened.change_estimate_request


def _checkpoint(
    state: LaneState, generation: int, covered: Position, read_from: int, incident: int = 0, before_change: bool = True
) -> Checkpoint:
    return make_checkpoint(
        state.lane, generation, covered, _CODE_VERSION, sha256(msgspec.json.encode(state.settings)),
        dump_state(state), read_from=read_from, incident=incident, before_change=before_change,
    )  # fmt: skip


def _covered(partition: WindowsPartition) -> Position:
    return Position(partition=partition.number, offset=partition.done)
