"""A pack is a story in a folder, and shows every edit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from stream_interp.errors import IntegrityError, UsageError
from stream_interp.evidence import seal as seal_module
from stream_interp.evidence.make import replayed
from stream_interp.evidence.pack import CARD, REPORT, card_of, files_of, read_story
from stream_interp.evidence.replay import compare, require_equal
from stream_interp.evidence.report import LIMIT, render
from stream_interp.evidence.seal import MANIFEST, canonical, check, seal
from stream_interp.evidence.story import Story
from tests.evidence.stories import HOSTILE, after_a_relearn, drifted, hostile

STORY = drifted()
VERSIONS = {"stream-interp": "0.1.0", "torch": None}


def packed(story: Story, folder: Path) -> str:
    alerts, path = replayed(story)
    card = card_of(story, 1_800_000_000_000, VERSIONS)
    report = render(story, card, path, compare(story.alerts, alerts))
    return seal(folder, story.incident_id, story.lane, files_of(story, card, report))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    packed(STORY, tmp_path / "pack")
    return tmp_path / "pack"


def test_a_pack_is_the_story_again(folder: Path) -> None:
    manifest, root = check(folder)
    assert manifest.incident_id == STORY.incident_id
    assert len(root) == 64
    found = read_story(folder)
    assert found.checkpoint == STORY.checkpoint
    assert found.alerts == STORY.alerts
    assert [(r.offset, r.timestamp_ms, r.key, r.value) for r in found.records] == [
        (r.offset, r.timestamp_ms, r.key, r.value) for r in STORY.records
    ]
    assert [dict(r.headers) for r in found.records] == [dict(r.headers) for r in STORY.records]
    assert {c.manifest.key: c.body for c in found.controls} == {c.manifest.key: c.body for c in STORY.controls}
    assert (found.annotations, found.cuts, found.orders) == (STORY.annotations, STORY.cuts, STORY.orders)
    require_equal(found.alerts, replayed(found)[0])


def test_the_same_story_gives_the_same_root(tmp_path: Path) -> None:
    assert packed(STORY, tmp_path / "a") == packed(STORY, tmp_path / "b")


def test_a_pack_with_a_marker_inside_replays(tmp_path: Path) -> None:
    packed(after_a_relearn(), tmp_path / "p")
    found = read_story(tmp_path / "p")
    require_equal(found.alerts, replayed(found)[0])


def test_one_byte_of_any_file_is_noticed(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) >= 11
    for name in names:
        sound = (folder / name).read_bytes()
        middle = len(sound) // 2
        (folder / name).write_bytes(sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :])
        with pytest.raises(IntegrityError):
            check(folder)
        (folder / name).write_bytes(sound)
        check(folder)


def _add(folder: Path) -> None:
    (folder / "note.txt").write_text("later")


def _remove(folder: Path) -> None:
    (folder / "cuts.jsonl").unlink()


def _link(folder: Path) -> None:
    (folder / CARD).rename(folder.parent / CARD)
    (folder / CARD).symlink_to(folder.parent / CARD)


def _subfolder(folder: Path) -> None:
    (folder / "more").mkdir()


def _no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _link_as_manifest(folder: Path) -> None:
    (folder / MANIFEST).rename(folder.parent / MANIFEST)
    (folder / MANIFEST).symlink_to(folder.parent / MANIFEST)


def _escape(folder: Path) -> None:
    """A file outside the folder, named in the manifest with its right hash."""
    (folder / CARD).rename(folder.parent / CARD)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][f"../{CARD}"] = manifest["files"].pop(CARD)
    (folder / MANIFEST).write_bytes(canonical(manifest))


def _not_canonical(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _huge_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b" " * 2**21)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_add, "'note.txt' was added"),
        (_remove, "'cuts.jsonl' is missing"),
        (_link, "'incident.json' is no regular file"),
        (_subfolder, "'more' is no regular file"),
        (_no_manifest, "missing"),
        (_link_as_manifest, "no regular file"),
        (_escape, "'../incident.json' is missing"),
        (_not_canonical, "not in the form"),
        (_huge_manifest, "larger"),
    ],
)
def test_what_was_done_to_it_is_said(folder: Path, edit: Callable[[Path], None], says: str) -> None:
    edit(folder)
    with pytest.raises(IntegrityError, match=says):
        check(folder)


def test_a_pipe_that_takes_a_files_place_while_it_is_checked_does_not_hold_us(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed_then_swapped(pack: Path) -> dict[str, os.stat_result]:
        found = entries(pack)
        (pack / CARD).unlink()
        os.mkfifo(pack / CARD)
        return found

    entries = seal_module._entries
    monkeypatch.setattr(seal_module, "_entries", listed_then_swapped)
    with pytest.raises(IntegrityError, match=r"incident\.json"):
        check(folder)


def test_a_file_of_another_size_is_not_read(folder: Path) -> None:
    with (folder / "windows.bin").open("r+b") as file:
        file.truncate(1 << 40)  # takes no place on the disk, and hours to hash
    with pytest.raises(IntegrityError, match="1099511627776 bytes"):
        check(folder)


def test_a_record_that_claims_more_bytes_than_there_are_takes_no_memory(folder: Path) -> None:
    lines = (folder / "windows.jsonl").read_text().splitlines()
    edited = re.sub('"value_bytes":[0-9]+', f'"value_bytes":{1 << 50}', lines[0])
    (folder / "windows.jsonl").write_text("\n".join([edited, *lines[1:]]))
    with pytest.raises(IntegrityError, match="ends within the record"):
        read_story(folder)


def test_no_pack_is_no_edited_pack(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check(tmp_path / "nowhere")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        packed(STORY, tmp_path / "used")
    for folder in (tmp_path / "used" / "x", tmp_path / "used" / "x" / "pack"):
        with pytest.raises(UsageError, match=r"used/x is no folder; name a folder"):
            packed(STORY, folder)


def test_a_resealed_pack_with_other_contents_is_refused_by_its_own_parts(folder: Path) -> None:
    """Whoever edits and seals again passes `check`; the root hash on Kafka is what finds it."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    body = bytearray(files["checkpoint.safetensors"])
    body[-1] ^= 1
    other = folder.parent / "other"
    root = seal(other, STORY.incident_id, STORY.lane, [(n, [bytes(body) if n.startswith("checkpoint.s") else b])
                                                      for n, b in files.items()])  # fmt: skip
    assert check(other)[1] == root != check(folder)[1]
    with pytest.raises(IntegrityError, match="checkpoint"):
        read_story(other)
    last = folder.parent / "last"
    seal(last, STORY.incident_id, STORY.lane, [(n, [b]) for n, b in files.items() if n != "windows.bin"])
    with pytest.raises(IntegrityError, match=r"windows\.bin is missing"):
        read_story(last)


def test_the_report_reads_without_scripts_or_network(folder: Path) -> None:
    page = (folder / REPORT).read_text()
    assert not re.search(r"<script|javascript:|\son\w+=|https?:|src=|href=|@import|url\(", page)
    assert page.count("<polyline") >= 3
    for wanted in ('lang="en"', "prefers-color-scheme: dark", "@media print", "supports evidence for", "same ids"):
        assert wanted in page
    assert "compliant" not in page
    opened = STORY.transitions[0]
    assert opened.event_id in page
    assert STORY.transitions[-1].features
    for feature in STORY.transitions[-1].features:
        assert f"#{feature.feature}<" in page
    assert "ann" in page
    assert "bob" in page
    assert len(page) < 200_000


def test_the_report_tells_what_happened_in_order_of_time() -> None:
    first, last = STORY.transitions[0], STORY.transitions[-1]
    between = [structs.replace(a, at_ms=(first.at_ms + last.at_ms) // 2) for a in STORY.annotations]
    story = replace(STORY, annotations=tuple(between))
    page = render(story, card_of(story, 1, VERSIONS), [], [])
    told = page[page.index("Transitions and what people did") :]
    places = [told.index(what) for what in ("resolve asked", first.event_id, "<td>ann</td>", last.event_id)]
    assert places == sorted(places)  # the order of 1970 is the oldest


def test_hostile_names_are_shown_inert(tmp_path: Path) -> None:
    story = hostile()
    card = card_of(story, 1, VERSIONS)
    page = render(story, card, [], compare(story.alerts, []))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "x" * (LIMIT + 1) not in page
    assert f"{len(HOSTILE):,} characters" in page
    assert "did not give the recorded transitions" in page
    assert "too large" in page


def test_headers_that_are_no_text_survive(tmp_path: Path) -> None:
    record = STORY.records[-1]._replace(headers=[("ce_type", b"\xff"), ("none", None)], key=None, value=None)
    story = Story(**{**{f: getattr(STORY, f) for f in STORY.__dataclass_fields__}, "records": (record,)})
    packed(story, tmp_path / "p")
    (found,) = read_story(tmp_path / "p").records
    assert found == record
    assert msgspec.json.decode((tmp_path / "p" / CARD).read_bytes())["end"] == STORY.end
