"""`interp.state`: a lane's state after one window, in alternate slots, parts first and the manifest last.

Key `lane_id/slot/k`, the manifest under `lane_id/slot/manifest`. A writer that dies half-way spoils one slot; the other
still holds the checkpoint before.
"""

from __future__ import annotations

from collections.abc import Mapping
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

    @property
    def key(self) -> str:
        """`lane_id/slot`, the common part of the record keys."""
        return f"{self.lane.lane_id}/{self.generation % SLOTS}"


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
) -> Checkpoint:
    """The checkpoint of a lane whose state is `body`."""
    manifest = CheckpointManifest(
        lane=lane, generation=generation, parts=len(split(body, PART_BYTES)), bytes=len(body), sha256=sha256(body),
        covered=covered, read_from=read_from, code_version=code_version, settings_sha256=settings_sha256,
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


def newest_checkpoint(lane_id: str, records: Mapping[str, bytes]) -> Checkpoint | None:
    """The checkpoint with the highest generation that is whole, if any.

    Args:
        lane_id: whose.
        records: the last value of every key of the topic partition.

    Raises:
        IntegrityError: a manifest that cannot be read.
    """
    slots = (f"{lane_id}/{slot}" for slot in range(SLOTS))
    manifests = [read_json(records[f"{s}/manifest"], CheckpointManifest) for s in slots if f"{s}/manifest" in records]
    for manifest in sorted(manifests, key=lambda m: m.generation, reverse=True):
        body = b"".join(records.get(f"{manifest.key}/{k}", b"") for k in range(manifest.parts))
        if sha256(body) == manifest.sha256:
            return Checkpoint(manifest, body)
    return None
