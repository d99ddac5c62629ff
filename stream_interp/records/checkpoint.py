"""`interp.state`: a lane's state after one window, in alternate slots, parts first and the manifest last.

Key `lane_id/slot/k`, the manifest under `lane_id/slot/manifest`. A writer that dies half-way spoils one slot; the other
still holds the checkpoint before. For evidence, the checkpoint that an incident is replayed from is copied under
`lane_id/incident-N/k` when incident N opens, and stays as long as the windows behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from stream_interp.records.alert import Position
from stream_interp.records.chunks import sha256, split
from stream_interp.records.envelope import JSON, SAFETENSORS, Envelope, binary, read_json
from stream_interp.records.lane import Lane

PART_TYPE = "interp.checkpoint.part.v1"
MANIFEST_TYPE = "interp.checkpoint.manifest.v1"
PART_BYTES = 900_000
SLOTS = 2
_COPY = "incident-"


class CheckpointManifest(Struct, frozen=True, kw_only=True):
    """Written last: what the parts in one slot must add up to."""

    schema_version: Literal[1] = 1
    lane: Lane
    generation: int  # rises by one with every checkpoint of the lane; slot = generation mod 2
    parts: int
    bytes: int
    sha256: str
    covered: Position  # this state knows everything of its lane up to here
    read_from: int = 0  # first offset of what was not known yet, below `covered` where a window was incomplete
    code_version: str
    settings_sha256: str  # of the settings that decisions are a function of
    incident: int = 0  # number of the incident that this is a copy for; 0 = an ordinary checkpoint
    before_change: bool = True  # false where none so old was kept when the incident opened

    @property
    def key(self) -> str:
        """`lane_id/slot`, the common part of the record keys."""
        slot = f"{_COPY}{self.incident}" if self.incident else self.generation % SLOTS
        return f"{self.lane.lane_id}/{slot}"


class Checkpoint(Struct, frozen=True):
    """A whole checkpoint: its manifest and the bytes behind it."""

    manifest: CheckpointManifest
    body: bytes


def make_checkpoint(
    lane: Lane,
    generation: int,
    covered: Position,
    code_version: str,
    settings_sha256: str,
    body: bytes,
    *,
    read_from: int = 0,
    incident: int = 0,
    before_change: bool = True,
) -> Checkpoint:
    """The checkpoint of a lane whose state is `body`; with `incident`, the copy for that incident."""
    manifest = CheckpointManifest(
        lane=lane, generation=generation, parts=len(split(body, PART_BYTES)), bytes=len(body), sha256=sha256(body),
        covered=covered, read_from=read_from, code_version=code_version, settings_sha256=settings_sha256,
        incident=incident, before_change=before_change,
    )  # fmt: skip
    return Checkpoint(manifest, body)


def encode_checkpoint(checkpoint: Checkpoint) -> list[Envelope]:
    """Parts in order, manifest last."""
    m = checkpoint.manifest
    parts = [
        binary(f"{m.key}/{k}", PART_TYPE, SAFETENSORS, part, source="/detect")
        for k, part in enumerate(split(checkpoint.body, PART_BYTES))
    ]
    return [*parts, encode_manifest(m)]


def encode_manifest(manifest: CheckpointManifest) -> Envelope:
    """The manifest alone: the state is as it was, but it now covers more of the log."""
    return binary(f"{manifest.key}/manifest", MANIFEST_TYPE, JSON, msgspec.json.encode(manifest), source="/detect")


def encode_tombstones(manifest: CheckpointManifest) -> list[Envelope]:
    """What removes a copy from the compacted topic, its manifest first."""
    names = ["manifest", *map(str, range(manifest.parts))]
    return [Envelope(f"{manifest.key}/{name}".encode(), [], None) for name in names]


def whole_checkpoints(lane_id: str, records: Mapping[str, bytes]) -> Iterator[Checkpoint]:
    """The checkpoints of both slots that are whole, the newest first. Copies for incidents are none of them.

    Args:
        lane_id: whose.
        records: the last value of every key of the topic partition; empty for a tombstone.

    Raises:
        IntegrityError: a manifest that cannot be read.
    """
    slots = (f"{lane_id}/{slot}" for slot in range(SLOTS))
    manifests = [read_json(records[f"{s}/manifest"], CheckpointManifest) for s in slots if f"{s}/manifest" in records]
    for manifest in sorted(manifests, key=lambda m: m.generation, reverse=True):
        if (found := _whole(manifest, records)) is not None:
            yield found


def newest_checkpoint(lane_id: str, records: Mapping[str, bytes]) -> Checkpoint | None:
    """The first of `whole_checkpoints`, if any. Raises IntegrityError."""
    return next(whole_checkpoints(lane_id, records), None)


def incident_checkpoint(lane_id: str, incident: int, records: Mapping[str, bytes]) -> Checkpoint | None:
    """The copy that was made when the incident of this number opened; None where there is none, or it is not whole.

    Raises:
        IntegrityError: its manifest cannot be read.
    """
    value = records.get(f"{lane_id}/{_COPY}{incident}/manifest")
    return _whole(read_json(value, CheckpointManifest), records) if value else None


def copy_manifests(records: Mapping[str, bytes]) -> list[CheckpointManifest]:
    """Of all copies for incidents on the topic partition. Raises IntegrityError."""
    return [
        read_json(value, CheckpointManifest)
        for key, value in records.items()
        if value and is_copy(key) and key.endswith("/manifest")
    ]


def is_copy(key: str) -> bool:
    """Whether a record key belongs to a copy for an incident."""
    return key.partition("/")[2].startswith(_COPY)


def is_part_of_copy(key: str) -> bool:
    """Whether it is the key of a copy's part: large, and of no use to whoever goes on from the checkpoints."""
    return is_copy(key) and not key.endswith("/manifest")


def _whole(manifest: CheckpointManifest, records: Mapping[str, bytes]) -> Checkpoint | None:
    body = b"".join(records.get(f"{manifest.key}/{k}", b"") for k in range(manifest.parts))
    return Checkpoint(manifest, body) if sha256(body) == manifest.sha256 else None
