"""The files of an evidence pack: a story as files, and back. Pure but for reading the files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct, field

from stream_interp.detect.state import DetectSettings
from stream_interp.detect.state_codec import load_untested
from stream_interp.errors import IntegrityError
from stream_interp.evidence.seal import canonical
from stream_interp.evidence.story import Story
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation
from stream_interp.records.checkpoint import Checkpoint, CheckpointManifest
from stream_interp.records.chunks import sha256
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import (
    BaselineHeader,
    Manifest,
    Order,
    Versioned,
    make_order,
    read_baseline,
    read_order,
)
from stream_interp.records.cut import Cut
from stream_interp.records.envelope import read_json
from stream_interp.records.lane import Lane

CARD, REPORT = "incident.json", "report.html"
Record = TypeVar("Record", bound=Struct)


class Card(Struct, frozen=True, kw_only=True):
    """`incident.json`: what the pack is about, and what it stands on.

    Attributes:
        complete: False where windows beyond `end` were too large to be packed.
        before_change: False where no checkpoint so old was kept when the incident opened.
        versions: of what made the pack, by package; what DETECT was is in `checkpoint.json`.
        settings: that decisions are a function of, at the checkpoint; later ones are in the markers.
        baseline: that the incident was judged by.
    """

    schema_version: Literal[1] = 1
    incident_id: str
    lane: Lane
    incident: int
    partition: int
    read_from: int
    covered: int
    end: int
    complete: bool
    before_change: bool
    made_at_ms: int
    versions: dict[str, str | None] = field(default_factory=dict)
    settings: DetectSettings
    baseline: BaselineHeader | None


class StoredRecord(Struct, frozen=True, kw_only=True):
    """A line of `windows.jsonl`: a record of `interp.windows` and how many bytes of `windows.bin` are its value."""

    topic: str
    offset: int
    append_ms: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value_bytes: Annotated[int, Meta(ge=0)] | None  # None: a tombstone


class StoredControl(Struct, frozen=True, kw_only=True):
    """A line of `controls.jsonl`: a baseline or projector whose body is a file of its own."""

    manifest: Manifest
    file: str


class StoredOrder(Struct, frozen=True, kw_only=True):
    """A line of `orders.jsonl`: who asked what, as claimed."""

    author: str
    reason: str
    order: Order


def card_of(story: Story, made_at_ms: int, versions: dict[str, str | None]) -> Card:
    """The card of a story. Raises IntegrityError if its checkpoint cannot be read."""
    manifest = story.checkpoint.manifest
    versions_named = {alert.baseline_version for alert in story.transitions}
    headers = (read_baseline(c)[0] for c in story.controls if c.manifest.kind == "baseline")
    return Card(
        incident_id=story.incident_id, lane=story.lane, incident=manifest.incident,
        partition=manifest.covered.partition, read_from=manifest.read_from, covered=manifest.covered.offset,
        end=story.end, complete=story.complete, before_change=manifest.before_change, made_at_ms=made_at_ms,
        versions=versions, settings=load_untested(story.checkpoint.body).settings,
        baseline=next((h for h in headers if h.version in versions_named), None),
    )  # fmt: skip


def files_of(story: Story, card: Card, report: str) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Every file of the pack but the manifest, by name."""
    yield CARD, [canonical(card)]
    yield REPORT, [report.encode()]
    yield "checkpoint.json", [canonical(story.checkpoint.manifest)]
    yield "checkpoint.safetensors", [story.checkpoint.body]
    yield "windows.jsonl", _lines(map(_stored, story.records))
    yield "windows.bin", (record.value or b"" for record in story.records)
    yield "transitions.jsonl", _lines(story.alerts)
    yield "annotations.jsonl", _lines(story.annotations)
    yield "orders.jsonl", _lines(map(_stored_order, story.orders))
    yield "cuts.jsonl", _lines(story.cuts)
    yield (
        "controls.jsonl",
        _lines(StoredControl(manifest=c.manifest, file=_body_name(c.manifest)) for c in story.controls),
    )
    for control in story.controls:
        yield _body_name(control.manifest), [control.body]


def read_story(folder: Path) -> Story:
    """The story in a folder that `seal.check` has found whole.

    Raises:
        IntegrityError: a file is not what its name says, or there is none of that name.
    """
    try:
        return _read_story(folder)
    except FileNotFoundError as error:
        raise IntegrityError(f"{folder}: {error.filename} is missing; was the pack made by another version?") from error


def _read_story(folder: Path) -> Story:
    card = read_json((folder / CARD).read_bytes(), Card)
    manifest = read_json((folder / "checkpoint.json").read_bytes(), CheckpointManifest)
    body = (folder / "checkpoint.safetensors").read_bytes()
    if sha256(body) != manifest.sha256:
        raise IntegrityError(f"{folder}: checkpoint.safetensors is not the one that checkpoint.json names")
    orders = _read(folder, "orders.jsonl", StoredOrder)
    return Story(
        incident_id=card.incident_id, checkpoint=Checkpoint(manifest, body), records=_records(folder, card.partition),
        alerts=_read(folder, "transitions.jsonl", Alert), annotations=_read(folder, "annotations.jsonl", Annotation),
        controls=tuple(_control(folder, c) for c in _read(folder, "controls.jsonl", StoredControl)),
        orders=tuple(make_order(o.order, o.author, o.reason) for o in orders),
        cuts=_read(folder, "cuts.jsonl", Cut), end=card.end, complete=card.complete,
    )  # fmt: skip


def _stored(record: Consumed) -> StoredRecord:
    headers = [(name, value.encode() if isinstance(value, str) else value) for name, value in record.headers]
    return StoredRecord(
        topic=record.topic, offset=record.offset, append_ms=record.timestamp_ms, key=record.key, headers=headers,
        value_bytes=None if record.value is None else len(record.value),
    )  # fmt: skip


def _records(folder: Path, partition: int) -> tuple[Consumed, ...]:
    stored, records = _read(folder, "windows.jsonl", StoredRecord), list[Consumed]()
    with (folder / "windows.bin").open("rb") as values:
        left = os.fstat(values.fileno()).st_size  # asked first: reading makes room for all that is asked for
        for s in stored:
            left -= s.value_bytes or 0
            value = None if s.value_bytes is None or left < 0 else values.read(s.value_bytes)
            if left < 0:
                raise IntegrityError(f"{folder}: windows.bin ends within the record at offset {s.offset}")
            headers: list[tuple[str, bytes | str | None]] = [*s.headers]
            records.append(Consumed(s.topic, partition, s.offset, s.append_ms, s.key, headers, value))
    return tuple(records)


def _stored_order(record: Versioned) -> StoredOrder:
    return StoredOrder(author=record.manifest.author, reason=record.manifest.reason, order=read_order(record))


def _control(folder: Path, stored: StoredControl) -> Versioned:
    if stored.file != _body_name(stored.manifest):
        raise IntegrityError(f"{folder}: controls.jsonl names the file {stored.file!r}")
    body = (folder / stored.file).read_bytes()
    if sha256(body) != stored.manifest.sha256:
        raise IntegrityError(f"{folder}: {stored.file} is not the one that controls.jsonl names")
    return Versioned(stored.manifest, body)


def _body_name(manifest: Manifest) -> str:
    return f"{manifest.kind}-{manifest.version}.safetensors"


def _lines(records: Iterable[Struct]) -> Iterator[bytes]:
    return (canonical(record) + b"\n" for record in records)


def _read(folder: Path, name: str, record_type: type[Record]) -> tuple[Record, ...]:
    with (folder / name).open("rb") as lines:
        return tuple(read_json(line, record_type) for line in lines)
