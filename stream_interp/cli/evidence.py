"""`evidence`, `evidence verify`, `replay`: an incident as a folder that shows if it was edited, and its replay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.ordering import AuthorOption, now_ms, signature
from stream_interp.cli.output import emit_json, emit_table, notice, warn
from stream_interp.cli.version import versions
from stream_interp.errors import IntegrityError
from stream_interp.records.envelope import rfc3339

if TYPE_CHECKING:  # at run time a command imports what it needs, so that `--help` does not load torch
    from stream_interp.evidence.path import Point

MAX_PATH_ROWS = 24
MAX_PATH_SERIES = 4

Pack = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an evidence pack.")]


def pack(
    incident: Annotated[str, typer.Argument(help="The incident's id, the beginning of it, or `latest`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the pack.")],
    author: AuthorOption = None,
    reason: Annotated[str, typer.Option("--reason", help="What it is for, for those who read it later.")] = "",
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", min=1, help="Of windows; a longer incident is packed up to there.")
    ] = 1024**3,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Packs an incident with what it takes to replay it, and publishes the pack's root hash on interp.control."""
    from stream_interp.cli.finding import find_incident
    from stream_interp.evidence.collect import collect
    from stream_interp.evidence.make import make_pack
    from stream_interp.evidence.seal import require_free
    from stream_interp.kafka.latest import read_latest
    from stream_interp.records.alert import AlertState

    require_free(out)  # before all the windows are read
    kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    signed = signature(author, reason, required=False)
    states = read_latest(kafka, "interp.alert-state", AlertState)
    story = collect(kafka, find_incident(incident, states).incident_id, max_bytes)
    made = make_pack(kafka, story, out, now_ms(), versions(), signed.author, signed.reason)
    if not story.checkpoint.manifest.before_change:
        warn("no checkpoint from before the estimated change was left: the pack begins at the oldest that was")
    if not story.complete:
        warn(f"windows behind offset {story.end} are left out: more than {max_bytes:,} bytes")
    records, transitions = len(story.records), len(story.alerts)
    report = {
        "schema_version": 1, "incident_id": story.incident_id, "folder": str(out), "root_sha256": made.root_sha256,
        "records": records, "transitions": transitions, "replay": "differs" if made.differences else "same",
    }  # fmt: skip
    if json:
        emit_json(report)
    else:
        notice(
            f"packed incident {story.incident_id} into {out}: {records} records, {transitions} transitions; "
            f"root hash {made.root_sha256} is on {kafka.topic_prefix}interp.control. Read {out / 'report.html'}"
        )
    if made.differences:
        raise IntegrityError(
            f"the replay of incident {story.incident_id} differs from what was recorded, see {out / 'report.html'}; "
            "was it opened under another version?"
        )


def verify(
    folder: Pack,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only whether the folder agrees with itself, which proves less.")
    ] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Whether a pack is as it was made: every file by its hash, and the root hash by interp.control; exit 6 if not."""
    from stream_interp.evidence.root import require_published
    from stream_interp.evidence.seal import check

    manifest, root = check(folder)
    report: dict[str, object] = {
        "schema_version": 1, "incident_id": manifest.incident_id, "root_sha256": root, "files": len(manifest.files),
        "published": None,
    }  # fmt: skip
    what = f"incident {manifest.incident_id}, {len(manifest.files)} files, root hash {root}"
    if offline:
        warn("the folder agrees with itself; whether it is the pack that was made, only interp.control can tell")
        notice(what)
    else:
        kafka = load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
        signed = require_published(kafka, manifest, root).manifest
        report["published"] = {"at_ms": signed.version, "author": signed.author, "reason": signed.reason}
        notice(f"unchanged: {what}")
        notice(f"published {rfc3339(signed.version)} by {signed.author or 'unknown'} (as claimed)")
    if json:
        emit_json(report)


def replay(folder: Pack, json: JsonOption = False) -> None:
    """Replays a pack without Kafka: the recorded transitions, with the same ids, must come again; exit 6 if not."""
    from stream_interp.evidence.make import replayed
    from stream_interp.evidence.pack import read_story
    from stream_interp.evidence.replay import require_equal
    from stream_interp.evidence.seal import check

    check(folder)
    story = read_story(folder)
    alerts, path = replayed(story)
    recorded = {alert.event_id for alert in story.alerts}
    if json:
        shown = [{"event_id": a.event_id, "transition": a.transition, "severity": a.severity, "at_ms": a.at_ms,
                  "recorded": a.event_id in recorded} for a in alerts]  # fmt: skip
        emit_json({"schema_version": 1, "incident_id": story.incident_id, "transitions": shown, "path": path})
    else:
        emit_table(
            "Transitions", ["time", "transition", "severity", "request", "event_id", "recorded"],
            [[rfc3339(a.at_ms), a.transition, a.severity, a.request, a.event_id,
              "same" if a.event_id in recorded else "missing"] for a in alerts],
        )  # fmt: skip
        _show_path(path)
    require_equal(story.alerts, alerts)
    notice(f"same {len(alerts)} transitions with the same ids, from {len(path)} windows")


def _show_path(path: list[Point]) -> None:
    """The strongest statistics, log10 of e over A, and health, at evenly chosen windows."""
    if not path:
        return
    names = sorted(path[-1].log_e, key=lambda name: -max(_over(p, name) for p in path))[:MAX_PATH_SERIES]
    chosen = path[:: -(-len(path) // MAX_PATH_ROWS)]
    emit_table(
        "log10 of e-value over its threshold (alarm at 0)", ["time", "request", *names, "explained variance", "l0"],
        [[rfc3339(p.closed_at_ms), p.request, *(f"{_over(p, n):.1f}" for n in names),
          *(None if v is None else f"{v:.4g}" for v in (p.health.explained_variance, p.health.l0))] for p in chosen],
    )  # fmt: skip


def _over(point: Point, name: str) -> float:
    """log10 of the statistic over its threshold; −∞ where it is 0 or not armed."""
    e, a = point.log_e.get(name), point.log_threshold.get(name)
    return -math.inf if e is None or a is None else (e - a) / math.log(10)
