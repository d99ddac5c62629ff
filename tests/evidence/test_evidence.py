"""Evidence packs of a real DETECT on a real Kafka: after many checkpoints, after a crash, edited, expired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream_interp.cli import main
from stream_interp.evidence.collect import collect
from stream_interp.evidence.make import replayed
from stream_interp.evidence.path import incident_path
from stream_interp.kafka.control import publish_controls
from stream_interp.records.alert import Alert
from stream_interp.records.checkpoint import CheckpointManifest
from stream_interp.records.control import Order, make_order
from stream_interp.records.cut import Cut, LaneCount, OpenRequest, encode_cut
from stream_interp.records.envelope import Envelope, read_json
from tests.detect.lanes import LANE, Driver, requests
from tests.detect.log import window_records
from tests.detect.workers import Bench
from tests.workers import ROOT, Worker, until

PLANTED = "request-4711"
OTHER_LANE = "0" * 16


@pytest.fixture
def bench(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Bench:
    made = Bench(kafka_bootstrap, topic_prefix, tmp_path)
    made.options["checkpoint.interval_s"] = "0.2"
    made.apply_topics(partitions=2)
    return made


def cli(bench: Bench, *words: str | Path) -> int:
    sets = ["--set", f"kafka.topic_prefix={bench.prefix}", "--bootstrap", bench.bootstrap]
    return main([*map(str, words), *sets])


def without_a_broker(folder: Path) -> subprocess.CompletedProcess[str]:
    """`replay` where no Kafka can be reached."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_INTERP")}
    return subprocess.run(
        [sys.executable, "-m", "stream_interp.cli", "replay", str(folder), "--json"], capture_output=True, text=True,
        cwd=folder.parent, env={**environ, "PYTHONPATH": str(ROOT), "STREAM_INTERP_KAFKA__BOOTSTRAP": "127.0.0.1:1"},
        timeout=120, check=False,
    )  # fmt: skip


def generations(bench: Bench) -> tuple[int, list[CheckpointManifest]]:
    """Of the newest checkpoint, and the copies for incidents."""
    found = [
        read_json(m.value(), CheckpointManifest) for m in bench.read("interp.state") if m.key().endswith(b"/manifest")
    ]
    return max((m.generation for m in found), default=-1), [m for m in found if m.incident]


def feed(bench: Bench, worker: Worker, records: list[Envelope]) -> None:
    """So slowly that many checkpoints are written."""
    for k in range(0, len(records), 6):
        bench.produce("interp.windows", records[k : k + 6])
        time.sleep(0.25)
        assert worker.process.poll() is None, worker.text


def cut_of(record: Envelope) -> Cut:
    """The cut of a window, with what must not leave it."""
    a, b = map(int, dict(record.headers)["ce_window"].rpartition(b"[")[2].rstrip(b")").split(b","))
    counts = {lane_id: LaneCount(lane=LANE, requests=8, tokens=48) for lane_id in (LANE.lane_id, OTHER_LANE)}
    return Cut(
        topic="t", partition=0, a=a, b=b, read_from=b, closed_at_ms=1, records=8, counted_records=8, pending_records=0,
        lanes=counts, open={PLANTED: OpenRequest(first_offset=1, records=1, born_ms=1)}, dropped={PLANTED: 1},
    )  # fmt: skip


def opened(bench: Bench) -> list[Alert]:
    return [alert for alert in bench.alerts() if alert.transition == "opened"]


def edited(folder: Path) -> Iterable[str]:
    """Every file with one byte changed, or one more, in turn; then a file added."""
    for path in sorted(folder.iterdir()):
        sound = path.read_bytes()
        path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:] if sound else b" ")
        yield path.name
        path.write_bytes(sound)
    (folder / "added").write_text("")
    yield "added"
    (folder / "added").unlink()


def test_a_pack_after_fifty_checkpoints_and_a_crash(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    driver, rng = Driver(), np.random.default_rng(1)
    driver.learn(rng)
    driver.feed(requests(rng, 160))
    drift = len(driver.windows)
    driver.feed(requests(rng, 80, shift=1.5))
    driver.feed(requests(rng, 1_700))
    records = [window_records([window], chunk_bytes=4_000) for window in driver.windows]
    with bench.worker() as worker:
        until(lambda: "replays" in worker.text, worker)
        feed(bench, worker, [r for of in records[:drift] for r in of])
        bench.produce("interp.windows", [r for of in records[drift : drift + 8] for r in of])
        bench.produce("interp.cuts", [encode_cut(cut_of(of[0])) for of in records])
        until(lambda: opened(bench), worker)
        worker.kill()
    at_opening, copies = generations(bench)
    assert [m.incident for m in copies] == [1]
    assert copies[0].before_change
    with bench.worker() as worker:
        until(lambda: "1 lanes restored" in worker.text, worker)
        feed(bench, worker, [r for of in records[drift + 8 :] for r in of])
        until(lambda: generations(bench)[0] >= at_opening + 50, worker)
        until(lambda: bench.alerts()[-1].transition == "resolved", worker)
        worker.kill()
    told = [a.event_id for a in bench.alerts() if not a.after_alarm]  # what that job adds is no decision
    assert len(told) == len(set(told)) >= 2
    incident, folder = opened(bench)[0].incident_id, bench.folder / "pack"

    assert cli(bench, "evidence", incident[:10], "--out", folder, "--author", "ann", "--reason", "audit") == 0
    capsys.readouterr()
    assert cli(bench, "evidence", "verify", folder) == 0  # of which incident: an honest pack of another is no answer
    assert f"unchanged: incident {incident}" in " ".join(capsys.readouterr().err.split())
    assert cli(bench, "evidence", "verify", folder, "--json") == 0
    published = json.loads(capsys.readouterr().out)["published"]
    assert (published["author"], published["reason"]) == ("ann", "audit")
    done = without_a_broker(folder)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert [t["event_id"] for t in again["transitions"]] == told
    assert [p["offset"] for p in again["path"]] == sorted(p["offset"] for p in again["path"])
    for path in folder.iterdir():
        assert PLANTED.encode() not in path.read_bytes()
        assert OTHER_LANE.encode() not in path.read_bytes() or path.name == "windows.bin"
    assert len((folder / "cuts.jsonl").read_bytes().splitlines()) == len(again["path"])

    for name in edited(folder):
        assert cli(bench, "evidence", "verify", folder) == 6, name
    resealed = (folder / "report.html").read_bytes()
    (folder / "report.html").write_bytes(resealed.replace(b"critical", b"harmless"))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    _reseal(folder, manifest)
    assert main(["evidence", "verify", str(folder), "--offline"]) == 0
    assert f"incident {incident}, " in " ".join(capsys.readouterr().err.split())
    assert cli(bench, "evidence", "verify", folder) == 6
    assert "not the one that was published" in " ".join(capsys.readouterr().err.split())


def _reseal(folder: Path, manifest: dict[str, dict[str, dict[str, object]]]) -> None:
    from stream_interp.evidence.seal import canonical
    from stream_interp.records.chunks import sha256

    body = (folder / "report.html").read_bytes()
    manifest["files"]["report.html"] = {"bytes": len(body), "sha256": sha256(body)}
    (folder / "manifest.json").write_bytes(canonical(manifest))


def test_relearnt_on_the_way_still_open_too_large_and_then_expired(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.options["checkpoint.interval_s"] = "1000"  # only a lane's first checkpoint, and one at the end
    order = Order(kind="relearn", lane=LANE, version=time.time_ns() // 1_000_000)
    before, again, rng = Driver(), Driver(), np.random.default_rng(2)
    before.learn(rng)
    again.offset, again.state = before.offset, replace(again.state, relearned=order.version)
    again.learn(rng)
    again.feed(requests(rng, 80))
    again.feed(requests(rng, 80, shift=1.5))
    with bench.worker() as worker:
        until(lambda: "replays" in worker.text, worker)
        bench.produce("interp.windows", window_records(before.windows[:1]))
        until(lambda: generations(bench)[0] >= 0, worker)
        bench.produce("interp.windows", window_records(before.windows[1:]))
        until(lambda: bench.statuses().get("h") and bench.statuses()["h"].state == "ok", worker)
        publish_controls(bench.kafka, [make_order(order, "ann", "new product")])
        until(lambda: bench.markers() and bench.statuses()["h"].state == "learning", worker)
        bench.produce("interp.windows", window_records(again.windows))
        until(lambda: opened(bench), worker)
        until(lambda: bench.statuses()["h"].position.offset >= bench.windows_log()[-1].offset, worker)
        worker.kill()
    incident, folder = opened(bench)[0].incident_id, bench.folder / "pack"
    assert cli(bench, "evidence", incident, "--out", folder) == 0
    done = without_a_broker(folder)
    assert done.returncode == 0, done.stderr
    assert [t["event_id"] for t in json.loads(done.stdout)["transitions"]] == [a.event_id for a in bench.alerts()]
    assert "relearn asked" in (folder / "report.html").read_text()

    story = collect(bench.kafka, incident)
    path = incident_path(story)
    assert path[-1].open
    short = collect(bench.kafka, incident, max_bytes=100_000)
    assert not short.complete
    assert sum(len(r.value or b"") for r in short.records) <= 100_000
    assert [a.event_id for a in replayed(short)[0]] == [a.event_id for a in story.alerts if a in short.alerts]
    assert len(replayed(short)[0]) == len(short.alerts) < len(story.alerts)

    capsys.readouterr()
    assert cli(bench, "evidence", "nobody", "--out", bench.folder / "x") == 2
    assert incident in " ".join(capsys.readouterr().err.split())
    with bench.worker(checkpoint__interval_s="0.5") as worker:  # one that needs none of the first windows
        until(lambda: generations(bench)[0] >= 1, worker)
        assert worker.terminate() == 0
    partition = opened(bench)[0].position.partition
    bench.forget("interp.windows", bench.windows_log()[-1].offset, partition)
    assert cli(bench, "evidence", incident, "--out", bench.folder / "y") == 6
    assert "they have expired" in " ".join(capsys.readouterr().err.split())
    with bench.worker() as worker:
        until(lambda: "1 lanes restored" in worker.text, worker)
        bench.produce("interp.windows", window_records(again.windows[-1:]))
        until(lambda: bench.statuses()["h"].position.offset >= bench.windows_log()[-1].offset, worker)
        assert worker.terminate() == 0
    assert cli(bench, "evidence", incident, "--out", bench.folder / "z") == 6
    assert "no checkpoint to replay it from" in " ".join(capsys.readouterr().err.split())
