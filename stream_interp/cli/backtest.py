"""`stream-interp backtest`: the same pure pipeline on files, without Kafka, one request a window."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, notice, warn
from stream_interp.settings import SiteSettings

LABELLED = 10  # detections shown with their labels

SaeOption = Annotated[Path, typer.Option("--sae", metavar="DIR", help="SAE checkpoint.")]


def backtest(
    sae: SaeOption,
    baseline: Annotated[Path, typer.Option("--baseline", metavar="FILE", help="Activations to learn from.")],
    stream: Annotated[list[Path], typer.Option("--stream", metavar="FILE", help="Activations to test. May repeat.")],
    continue_: Annotated[
        bool, typer.Option("--continue", help="Streams follow one another; else each starts from the fresh baseline.")
    ] = False,
    false_alarms_per_week: Annotated[float | None, typer.Option(min=1e-9, help="The budget of the lane.")] = None,
    requests_per_week: Annotated[float | None, typer.Option(min=1e-9, help="Traffic that a week stands for.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Feature labels, JSON or CSV. [default: the sites.feature_labels made for this SAE]",
        ),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Runs streams of activations against a baseline and says what would have been alarmed, and when."""
    from stream_interp import offline
    from stream_interp import sae as saes
    from stream_interp.encode.requests import shape_of
    from stream_interp.records.control import read_projector
    from stream_interp.records.lane import Lane

    overrides = flags(
        sets,
        drift__false_alarms_per_week=false_alarms_per_week,
        drift__requests_per_week=requests_per_week,
        drift__clock="requests",
    )
    settings = load_settings(config, overrides)
    encoder = saes.load_encoder(sae, device=settings.sae.device)
    lane = Lane(model_id="backtest", hook_name=encoder.config.hook_name or "file", sae_fingerprint=encoder.fingerprint)
    texts = _labels(labels, settings.sites, lane, encoder.d_sae)
    version = time.time_ns() // 1_000_000
    learnt = offline.learn(baseline, lane, encoder, settings.drift, version, unit=settings.unit)
    shape = shape_of(lane, read_projector(learnt.projector))
    state, reports = learnt.state, []
    for path in stream:
        run = offline.replay(path, state, shape, encoder)
        reports.append(_stream_report(path, run, texts))
        state = run.state if continue_ else learnt.state
    report = {
        "schema_version": 1,
        "lane": {**msgspec.to_builtins(lane), "lane_id": lane.lane_id},
        "baseline": _baseline_report(learnt),
        "streams": reports,
    }
    if json:
        emit_json(report)
    else:
        _show(report)


def _labels(path: Path | None, sites: list[SiteSettings], lane: Any, d_sae: int) -> Mapping[int, str]:
    """feature → label, of the file named, or of the first that the settings name and that was made for this SAE."""
    from stream_interp.detect.label_files import read_labels

    paths = [str(path)] if path else dict.fromkeys(site.feature_labels for site in sites if site.feature_labels)
    for found in map(read_labels, paths):
        if found.is_for(lane):
            if why := found.why_not(lane, d_sae):
                warn(why)
            return found.texts
        if path:
            warn(f"no label is shown: {found.why_not(lane)}")
    return {}


def _baseline_report(learnt: Any) -> dict[str, Any]:
    tests = learnt.state.tests
    return {
        "requests": learnt.requests,
        "tokens": learnt.tokens,
        "features_armed": tests.features_armed,
        "features_not_covered": tests.features_not_covered,
        "thresholds_weeks": tests.thresholds,
        "provisional": learnt.state.baseline.header.provisional,
    }


def _stream_report(path: Path, run: Any, labels: Mapping[int, str]) -> dict[str, Any]:
    from stream_interp.detect import health
    from stream_interp.detect.view import status_of

    header, with_sae = run.state.baseline.header, run.state.tests.d_sae > 0
    now = health.scalars(run.health, with_sae)
    incidents: dict[str, list[tuple[int, Any]]] = {}
    for request, alert in run.alerts:
        if alert.groups:
            incidents.setdefault(alert.incident_id, []).append((request, alert))
    opened = [story[0][0] for story in incidents.values() if story[0][1].transition == "opened"]
    return {
        "file": str(path),
        "requests": run.requests,
        "tokens": run.tokens,
        "status": status_of(run.state, 0, 0).state,
        "first_incident_request": min(opened, default=None),
        "detections": [
            {"feature": d.feature, "label": labels.get(d.feature, ""), "direction": d.direction, "request": request,
             "log_e": d.log_e, "rate_baseline": d.rate_baseline, "rate_now": d.rate_now}
            for request, d in sorted(run.detections.values(), key=lambda item: (item[0], -item[1].log_e))
        ],
        "incidents": [_incident_report(story) for story in incidents.values()],
        "health": {
            "explained_variance": now["explained_variance"],
            "explained_variance_baseline": header.explained_variance,
            "l0": now["l0"],
            "l0_baseline": header.l0,
            "norm": now["norm"],
            "norm_baseline": header.norm,
        },
    }  # fmt: skip


def _incident_report(story: list[tuple[int, Any]]) -> dict[str, Any]:
    """An incident as its last alert of this stream has it, and all its alerts.

    With --continue it may have opened before this stream: then `opened_request` is 0 or less.
    """
    request, last = story[-1]
    return {
        "severity": last.severity,
        "opened_request": request - (last.request - last.opened_request),
        "cause_hint": last.cause_hint,
        "features": [d.feature for d in last.features],
        "features_drifted": last.features_drifted,
        "scores": [s.score for s in last.scores],
        "groups": last.groups,
        "alerts": [
            {"transition": alert.transition, "request": request, "severity": alert.severity, "event_id": alert.event_id}
            for request, alert in story
        ],
    }


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _show(report: dict[str, Any]) -> None:
    base = report["baseline"]
    notice(
        f"baseline: {base['requests']} requests, {base['tokens']} tokens, {base['features_armed']} features armed, "
        f"{base['features_not_covered']} not covered" + (", provisional" if base["provisional"] else "")
    )
    rows = [
        [Path(s["file"]).name, s["requests"], s["status"], s["first_incident_request"], len(s["detections"]),
         _short(s["health"]["explained_variance"]), _short(s["health"]["l0"])]
        for s in report["streams"]
    ]  # fmt: skip
    emit_table("", ["stream", "requests", "status", "first incident at", "features", "expl. variance", "l0"], rows)
    labelled = [(Path(s["file"]).name, d) for s in report["streams"] for d in s["detections"] if d["label"]]
    if labelled:
        cells: list[list[object]] = [
            [
                name,
                d["feature"],
                d["label"],
                d["direction"],
                d["request"],
                f"{d['rate_baseline']:.2%}→{d['rate_now']:.2%}",
            ]
            for name, d in labelled[:LABELLED]
        ]
        emit_table("", ["stream", "feature", "label", "direction", "at request", "rate"], cells)
