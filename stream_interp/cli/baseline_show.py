"""`stream-interp baseline show`: the card of one baseline: what it was counted from, what it can see and what not."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_interp.cli.baseline import card
from stream_interp.cli.configuration import load_settings
from stream_interp.cli.finding import cut
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, emit_text
from stream_interp.cli.versions import read_versions
from stream_interp.detect.armed.features import MIN_FIRINGS
from stream_interp.detect.card import rare_features
from stream_interp.drift.stationarity import MARKED
from stream_interp.errors import UsageError
from stream_interp.records.arrays import Arrays
from stream_interp.records.control import BaselineHeader, Sight, Versioned, read_baseline
from stream_interp.records.envelope import rfc3339

SEGMENTS_LISTED = 8


def show(
    lane: Annotated[str, typer.Argument(help="Its id, the beginning of it, or its model; see `baseline list`.")],
    version: Annotated[int | None, typer.Argument(help="Default: the one in effect.")] = None,
    features: Annotated[bool, typer.Option("--features", help="List the features that are too rare to cover.")] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """The card of a baseline: its data, who made it, what it can see, and what it cannot."""
    versions = read_versions(load_settings(config, flags(sets, bootstrap=bootstrap)).kafka)
    lane_id = versions.lane(lane).lane_id
    wanted = version or versions.in_effect(lane_id)
    if not wanted:
        raise UsageError(f"no baseline is in effect on lane {lane_id}; name a version of `baseline list`")
    record = versions.one(lane_id, wanted)
    header, arrays = read_baseline(record)
    if json:
        listed = {"rare_features": rare_features(arrays)} if features else {}
        emit_json({"schema_version": 1, **card(record), **listed})
        return
    emit_table("", ["", ""], rows(record, header))
    if features:
        _list(arrays)


def rows(record: Versioned, header: BaselineHeader) -> list[list[object]]:
    """All of it, for people: name and value."""
    manifest, lane = record.manifest, header.lane
    return [
        ["lane", f"{header.lane.lane_id}: {cut(lane.model_id)} / {cut(lane.hook_name)}, tenant {cut(lane.tenant)}"],
        ["model revision", cut(lane.model_revision)],
        ["SAE fingerprint", cut(lane.sae_fingerprint, 64)],
        ["version", f"{header.version}, made {rfc3339(header.version)}"],
        ["made by", f"{cut(manifest.author) or 'unknown'} (as claimed): {cut(manifest.reason, 200)}"],
        ["same as", header.origin or None],
        ["sha256", manifest.sha256],
        ["code version", cut(header.code_version) or None],
        ["projector", f"{header.projector_version}, fitted on {header.fit_requests:,} requests"],
        ["requests", _requests(header)],
        ["tokens", f"{header.tokens:,}; unit_tokens {header.unit_tokens or 'not kept'}"],
        ["strata", ", ".join(f"{name} {n:,}" for name, n in header.strata.items()) or None],
        ["segments", _segments(header.segments)],
        ["windows", _windows(header)],
        ["design effect", _design_effect(header)],
        ["one distribution", _stationary(header.stationary_p)],
        *_sees(header.sight),
    ]


def _requests(header: BaselineHeader) -> str:
    said = f"{header.requests:,} counted, {header.too_short:,} too short"
    return (
        f"{said}; provisional: fewer than the default asks for, rare features are seen late"
        if header.provisional
        else said
    )


def _segments(requests: dict[str, int]) -> str | None:
    """The largest first; None where no request names one."""
    largest = sorted(requests.items(), key=lambda item: -item[1])
    named = ", ".join(f'"{cut(name)}" {n:,}' for name, n in largest[:SEGMENTS_LISTED])
    return f"{named} and {len(largest) - SEGMENTS_LISTED} more" if len(largest) > SEGMENTS_LISTED else named or None


def _windows(header: BaselineHeader) -> str | None:
    if not header.first_closed_at_ms:
        return None
    times = f"{rfc3339(header.first_closed_at_ms)} to {rfc3339(header.last_closed_at_ms)}"
    return f"{times}, offsets {header.first_offset} to {header.last_offset}"


def _design_effect(header: BaselineHeader) -> str | None:
    known = {"in their order": header.design_effect, "by group key": header.design_effect_of_groups}
    said = ", ".join(f"{effect:.2f} {how}" for how, effect in known.items() if effect is not None)
    return said + (": its requests are not independent" if header.dependent else "") if said else None


def _stationary(p: float | None) -> str | None:
    if p is None:
        return None
    return f"p = {p:.3f}" + (": doubtful, its requests may have changed while they were counted" if p <= MARKED else "")


def _sees(sight: Sight | None) -> list[list[object]]:
    if sight is None:
        return []
    ratios = "; ".join(
        f"{float(q):.0%} of features: {'none up to 64' if r is None else f'{r:g} or less'}"
        for q, r in sight.detectable_ratio.items()
    )
    return [
        ["sees", f"rate ratios within {sight.sla_requests:,} requests: {ratios}"],
        ["tested", f"the rate of {sight.features_armed:,} features"],
        ["not seen", f"of {sight.features_not_covered:,} features no change of up to 64-fold, in that time"],
        ["not covered", f"{sight.features_rare:,} features, which fired in fewer than {MIN_FIRINGS} requests: they are "
                        "tested only for firing more often (--features lists them)"],
    ]  # fmt: skip


def _list(arrays: Arrays) -> None:
    fired = arrays["requests_fired"]
    rare = rare_features(arrays)
    emit_text(f"{len(rare)} features that fired in fewer than {MIN_FIRINGS} requests, with the number of those:")
    emit_text(" ".join(f"{feature}:{fired[feature]}" for feature in rare) or "none")
