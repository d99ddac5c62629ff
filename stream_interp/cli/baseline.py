"""`stream-interp baseline build|list`: what a lane is judged by, made from a file, and as it stands on Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.ordering import AuthorOption, WhyOption, next_version, signature
from stream_interp.cli.output import emit_json, emit_table, notice
from stream_interp.records.control import Versioned, read_baseline

COLUMNS = [
    "model", "hook", "lane_id", "version", "now", "made", "requests", "provisional", "same as", "author", "reason",
]  # fmt: skip


def build(
    source: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="Activations to learn from, in the order they came.")
    ],
    model_id: Annotated[str, typer.Option("--model-id", help="Name of the model.")],
    hook: Annotated[str, typer.Option("--hook", help="Where in the model, such as layer.15.")],
    sae: Annotated[
        Path | None, typer.Option("--sae", metavar="DIR", help="SAE checkpoint (default: the site's; else T0 only).")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Revision of the model.")] = "unversioned",
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant of the site.")] = "default",
    reason: WhyOption = "",
    author: AuthorOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Makes a baseline from a file, split as `backtest` splits it, and publishes it on interp.control."""
    from stream_interp import offline
    from stream_interp import sae as saes
    from stream_interp.kafka.client import require_kafka
    from stream_interp.kafka.control import TOPIC, publish_controls
    from stream_interp.kafka.produce import require_topic
    from stream_interp.records.lane import NO_SAE, Lane

    signed = signature(author, reason, required=False)
    settings = load_settings(config, flags(sets, bootstrap=bootstrap))
    require_kafka(settings.kafka)
    require_topic(settings.kafka, TOPIC)
    site = settings.site_of(tenant=tenant, model_id=model_id, model_revision=revision, hook_name=hook)
    folder = sae or (site.sae if site else "")  # what ENCODE will use: another SAE is another lane
    encoder = saes.load_encoder(folder, device=settings.sae.device) if folder else None
    lane = Lane(
        tenant=tenant, model_id=model_id, hook_name=hook, model_revision=revision,
        sae_fingerprint=encoder.fingerprint if encoder else NO_SAE,
    )  # fmt: skip
    massive = site.massive if site else "share"
    version = next_version(settings.kafka, lane.lane_id)
    learnt = offline.learn(
        source, lane, encoder, settings.drift, version, massive, signed.reason, signed.author, settings.unit
    )
    publish_controls(settings.kafka, [learnt.projector, learnt.baseline])
    report = {"schema_version": 1, "lane_id": lane.lane_id, **card(learnt.baseline)}
    if json:
        emit_json(report)
    else:
        notice(
            f"published baseline {version} of lane {lane.lane_id}: {learnt.requests} requests, {learnt.tokens} tokens, "
            + (f"SAE {folder}" if folder else "no SAE: raw activations alone (T0)")
        )


def list_(
    model_id: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Every version of every lane, the newest of a lane last: which one is in effect, who made it, and why."""
    from stream_interp.cli.versions import read_versions

    versions = read_versions(load_settings(config, flags(sets, bootstrap=bootstrap)).kafka)
    cards = [
        {**card(record), "in_effect": record.manifest.version == versions.in_effect(record.manifest.lane.lane_id)}
        for record in versions.baselines()
        if model_id in (None, record.manifest.lane.model_id)
    ]
    if json:
        emit_json({"schema_version": 1, "baselines": cards})
    else:
        emit_table("", COLUMNS, [_row(made) for made in cards])


def card(record: Versioned) -> dict[str, Any]:
    """All of it, for machines."""
    header, _ = read_baseline(record)
    lane_id, manifest = header.lane.lane_id, record.manifest
    signed = {"sha256": manifest.sha256, "author": manifest.author, "reason": manifest.reason}
    return {"lane_id": lane_id, **msgspec.to_builtins(header), **signed}


def _row(of: dict[str, Any]) -> list[object]:
    from stream_interp.cli.finding import cut
    from stream_interp.records.envelope import rfc3339

    made = rfc3339(of["version"])
    effect = "in effect" if of["in_effect"] else None
    who = f"{cut(of['author']) or 'unknown'} (as claimed)"
    names = [cut(of["lane"]["model_id"]), cut(of["lane"]["hook_name"]), of["lane_id"]]
    numbers = [of["requests"], "yes" if of["provisional"] else "no", of["origin"] or None]
    return [*names, of["version"], effect, made, *numbers, who, cut(of["reason"], 200) or None]
