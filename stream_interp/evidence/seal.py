"""A folder of files under one hash: what was in it, and whether anything was changed since."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from stream_interp.errors import IntegrityError, UsageError
from stream_interp.records.chunks import sha256
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1024**2
_BLOCK_BYTES = 1024**2
_SHOWN = 5


class PackedFile(Struct, frozen=True, kw_only=True):
    """One file of a pack."""

    bytes: int
    sha256: str


class PackManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`manifest.json`, canonical JSON; its own sha256 is the root hash of the pack. `files` lists all but itself."""

    schema_version: Literal[1] = 1
    incident_id: str
    lane: Lane
    files: dict[str, PackedFile]


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return msgspec.json.encode(value, order="sorted")


def seal(folder: Path, incident_id: str, lane: Lane, files: Iterable[tuple[str, Iterable[bytes]]]) -> str:
    """Writes the files and the manifest into a new or empty folder; returns the root hash.

    Raises:
        UsageError: there is something in the folder, or it is none.
        OSError: the disk does not take it.
    """
    require_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: _write(folder / name, parts) for name, parts in files}
    manifest = canonical(PackManifest(incident_id=incident_id, lane=lane, files=written))
    _write(folder / MANIFEST, [manifest])
    return sha256(manifest)


def require_free(folder: Path) -> None:
    """Raises UsageError unless a pack can be made there; it makes nothing."""
    above = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not above.is_dir():
        raise UsageError(f"{above} is no folder; name a folder that does not exist yet")
    if above == folder and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a folder that does not exist yet")


def check(folder: Path) -> tuple[PackManifest, str]:
    """The manifest and root hash of a folder in which every file is as the manifest says, and no other is there.

    This shows only that the folder agrees with itself: whoever edits a file can write a new manifest. That the root
    hash is the published one is for the caller to ask.

    Raises:
        UsageError: no pack.
        IntegrityError: naming what was changed, is missing, or was added.
    """
    found = _entries(folder)
    if MANIFEST not in found or not stat.S_ISREG(found[MANIFEST].st_mode):
        raise IntegrityError(f"{folder}: {MANIFEST} is missing or no regular file; this is no whole evidence pack")
    raw = _read_manifest(folder)
    manifest = read_json(raw, PackManifest)
    faults = list(_faults(folder, manifest, found))
    if canonical(manifest) != raw:
        faults.append(f"{MANIFEST} is not in the form in which it was written")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise IntegrityError(f"{folder} is not as it was sealed: {'; '.join(faults[:_SHOWN])}{more}")
    return manifest, sha256(raw)


def _entries(folder: Path) -> dict[str, os.stat_result]:
    """Name → what it is, of everything in the folder; links are not followed."""
    try:
        with os.scandir(folder) as found:
            return {entry.name: entry.stat(follow_symlinks=False) for entry in found}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder}: no such folder; name the folder of an evidence pack") from error


def _read_manifest(folder: Path) -> bytes:
    raw = b"".join(_blocks(folder / MANIFEST, _MAX_MANIFEST_BYTES + 1))
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{folder}: {MANIFEST} is larger than {_MAX_MANIFEST_BYTES:,} bytes; it is none of ours")
    return raw


def _faults(folder: Path, manifest: PackManifest, found: Mapping[str, os.stat_result]) -> Iterator[str]:
    """What differs. A name in the manifest that is a path, such as `../x`, is no entry of the folder: missing."""
    for name in sorted({*manifest.files, *found} - {MANIFEST}):
        if name not in found:
            yield f"{name!r} is missing"
        elif not stat.S_ISREG(found[name].st_mode):
            yield f"{name!r} is no regular file"
        elif name not in manifest.files:
            yield f"{name!r} was added"
        elif found[name].st_size != (expected := manifest.files[name]).bytes:
            yield f"{name!r} was changed ({found[name].st_size} bytes, {expected.bytes} expected)"
        elif (read := _hash(_blocks(folder / name, expected.bytes + 1))) != expected:
            yield f"{name!r} was changed (sha256 {read.sha256[:12]}…, {expected.sha256[:12]}… expected)"


def _write(path: Path, parts: Iterable[bytes]) -> PackedFile:
    size, digest = 0, hashlib.sha256()
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += len(part)
    return PackedFile(bytes=size, sha256=digest.hexdigest())


def _hash(blocks: Iterable[bytes]) -> PackedFile:
    size, digest = 0, hashlib.sha256()
    for block in blocks:
        digest.update(block)
        size += len(block)
    return PackedFile(bytes=size, sha256=digest.hexdigest())


def _blocks(path: Path, limit: int) -> Iterator[bytes]:
    """The file in blocks, at most `limit` bytes of it; never a link or a pipe that was put there meanwhile."""
    left = limit
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while stat.S_ISREG(os.fstat(file.fileno()).st_mode) and (block := file.read(min(_BLOCK_BYTES, left))):
            yield block
            left -= len(block)
