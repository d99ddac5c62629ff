"""`stream-interp baseline promote|rollback|relearn|approve`: what a lane is judged by, on an operator's word."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.finding import lane_name
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, SetOption, flags
from stream_interp.cli.ordering import (
    AuthorOption,
    NoWaitOption,
    Signature,
    WhyOption,
    make,
    now_ms,
    publish_and_see,
    signature,
    unanswered,
)
from stream_interp.cli.output import emit_json, emit_text, notice
from stream_interp.cli.versions import Versions, read_versions
from stream_interp.errors import UsageError
from stream_interp.records.control import Versioned, read_order
from stream_interp.records.envelope import rfc3339
from stream_interp.records.lane import Lane
from stream_interp.records.promotion import promoted
from stream_interp.records.status import Status
from stream_interp.settings import KafkaSettings

LaneArgument = Annotated[str, typer.Argument(help="Its id, the beginning of it, or its model; see `baseline list`.")]


def promote(
    lane: LaneArgument,
    version: Annotated[int, typer.Argument(help="The version to bring into effect; see `baseline list`.")],
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Judge a lane by another of its baselines; it is published anew with its projector, the old one stays."""
    signed, kafka = signature(author, reason), load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    versions = read_versions(kafka)
    found = versions.lane(lane)
    if version == versions.in_effect(found.lane_id):
        raise UsageError(f"baseline {version} is in effect on lane {found.lane_id} already; nothing to promote")
    _bring_back(kafka, versions, versions.one(found.lane_id, version), signed, "promotion", no_wait, json)


def rollback(
    lane: LaneArgument,
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """Judge a lane by the baseline before the one in effect; after `relearn`, by the one before that."""
    signed, kafka = signature(author, reason), load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    versions = read_versions(kafka)
    _bring_back(kafka, versions, versions.before(versions.lane(lane).lane_id), signed, "rollback", no_wait, json)


def relearn(
    lane: LaneArgument,
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """A wanted change: the lane learns again from its next requests; until then it is `learning` and tests nothing."""
    signed, kafka = signature(author, reason), load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    versions = read_versions(kafka)
    found = versions.lane(lane)
    _warn_of_silence(found, "nothing is tested on it until it has learnt `baseline.requests` requests")
    record = make(kafka, "relearn", found, signed)
    before = versions.statuses.get(found.lane_id)
    done = publish_and_see(kafka, [record], lambda now: _has_begun_anew(now, found, before), wait=not no_wait)
    report = {"order": read_order(record), "author": signed.author, "reason": signed.reason}
    _tell(f"relearning of lane {found.lane_id}", report, done, no_wait, json)


def approve(
    lane: LaneArgument,
    reason: WhyOption,
    author: AuthorOption = None,
    no_wait: NoWaitOption = False,
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    json: JsonOption = False,
) -> None:
    """The baseline in effect becomes the lane's anchor, which later ones are compared with; ends `baseline_creep`."""
    signed, kafka = signature(author, reason), load_settings(config, flags(sets, bootstrap=bootstrap)).kafka
    versions = read_versions(kafka)
    found = versions.lane(lane)
    version = versions.in_effect(found.lane_id)
    if not version:
        raise UsageError(f"no baseline is in effect on lane {found.lane_id}; there is nothing to approve")
    record = make(kafka, "approve", found, signed, baseline_version=version)
    done = publish_and_see(kafka, [record], lambda now: _is_anchored_on(now, found, version), wait=not no_wait)
    report = {"order": read_order(record), "author": signed.author, "reason": signed.reason}
    _tell(f"approval of baseline {version} as the anchor of lane {found.lane_id}", report, done, no_wait, json)


def _bring_back(
    kafka: KafkaSettings, versions: Versions, old: Versioned, signed: Signature, what: str, no_wait: bool, json: bool
) -> None:
    lane, was = old.manifest.lane, old.manifest.version
    version = max(now_ms(), versions.newest(lane.lane_id) + 1)
    records = promoted(versions.controls, old, version, signed.author, f"{what} to {was}: {signed.reason}")
    _warn_of_silence(lane, "an open incident ends, because it was judged by another baseline")
    done = publish_and_see(kafka, records, lambda now: _is_judged_by(now, lane, version), wait=not no_wait)
    report = {
        "lane_id": lane.lane_id,
        "version": version,
        "origin": was,
        "author": signed.author,
        "reason": signed.reason,
    }
    _tell(f"{what} of lane {lane.lane_id} to {was} ({rfc3339(was)}), as {version}", report, done, no_wait, json)


def _is_judged_by(status: Status, lane: Lane, version: int) -> bool:
    return status.lane == lane and status.baseline is not None and status.baseline.version == version


def _is_anchored_on(status: Status, lane: Lane, version: int) -> bool:
    return status.lane == lane and status.baseline is not None and status.baseline.anchor == version


def _has_begun_anew(status: Status, lane: Lane, before: Status | None) -> bool:
    """Its position has moved past what was known, because the marker lies in the log, and no baseline is in effect."""
    moved = before is None or status.position > before.position
    return status.lane == lane and moved and status.baseline is None and status.state in ("learning", "blind")


def _warn_of_silence(lane: Lane, meanwhile: str) -> None:
    notice(f"lane {lane.lane_id} ({lane_name(lane)}): {meanwhile}; take it back with `stream-interp baseline rollback`")


def _tell(what: str, report: dict[str, object], taken_in: bool, no_wait: bool, json: bool) -> None:
    if json:
        emit_json({"schema_version": 1, **report, "taken_in": taken_in})
    else:
        emit_text(f"{what}: {'DETECT has taken it in' if taken_in else 'published'}")
    if not taken_in and not no_wait:
        raise unanswered(what)
