"""`status`: what the status of a model's lanes is now."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from msgspec import structs

from stream_interp.cli.alert_text import TOP_FEATURES, feature_text
from stream_interp.cli.configuration import load_settings
from stream_interp.cli.finding import cut
from stream_interp.cli.options import ConfigOption, JsonOption, RedisOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, emit_text, notice
from stream_interp.cli.proposals import model_ids
from stream_interp.errors import BlindError, IntegrityError, UsageError
from stream_interp.records.status import Coverage, Health, IncidentCard
from stream_interp.records.text import inert
from stream_interp.secret_files import read_secret
from stream_interp.settings import RedisSettings
from stream_interp.status.client import StatusClient
from stream_interp.status.connection import require_redis
from stream_interp.status.judge import LaneStatus, ModelStatus

DRIFT = 3  # exit code
COLUMNS = ["hook", "state", "reason", "requests", "coverage", "health", "incident", "age"]


def status(
    model_id: Annotated[str, typer.Argument(help="The model; `top --once` shows all.", autocompletion=model_ids)],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose model.")] = "default",
    revision: Annotated[str | None, typer.Option("--revision", help="Which revision (default: the newest).")] = None,
    hook: Annotated[str | None, typer.Option("--hook", help="Only the lanes of this hook.")] = None,
    fail_on: Annotated[
        Literal["warning", "critical"] | None, typer.Option("--fail-on", help="Exit 3 at this state or worse.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    redis_url: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """What the status of a model's lanes is now; exit 0, or 3 by --fail-on, 4 blind or unknown, 6 integrity error."""
    redis = load_settings(config, flags(sets, redis_url=redis_url)).redis
    answer = _ask(redis, model_id, tenant, revision, hook)
    if json:
        emit_json({"schema_version": 1, **structs.asdict(answer)})
    else:
        _show(answer)
    raise typer.Exit(exit_code(answer, fail_on))


def exit_code(answer: ModelStatus, fail_on: str | None) -> int:
    """The command's exit code for this answer; `fail_on` is `warning`, `critical` or None."""
    if answer.state == "integrity_error":
        return IntegrityError.exit_code
    if answer.state in {"blind", "unknown"}:
        return BlindError.exit_code
    reached = {"warning": {"warning", "critical"}, "critical": {"critical"}}
    return DRIFT if fail_on and answer.state in reached[fail_on] else 0


def _ask(redis: RedisSettings, model_id: str, tenant: str, revision: str | None, hook: str | None) -> ModelStatus:
    if not redis.url:
        raise UsageError("redis.url is empty, so there is nothing to look up; set it, or read the topic interp.status")
    password = read_secret(redis.password_file, "redis.password_file") if redis.password_file else None
    require_redis(redis.url, password=password)
    with StatusClient(redis.url, password=password) as client:
        return client.get(model_id, tenant=tenant, model_revision=revision, hook_name=hook)


def _show(answer: ModelStatus) -> None:
    revision = f" revision {answer.model_revision}" if answer.model_revision else ""
    reason = f": {answer.reason}" if answer.reason and not answer.lanes else ""
    emit_text(inert(f"{answer.tenant}/{answer.model_id}{revision} is {answer.state}{reason}"))
    rows = [_row(lane) for lane in answer.lanes]
    rows += [[lane.hook_name, "unknown", "no fresh status", *[None] * 5] for lane in answer.silent]
    if rows:
        emit_table("", COLUMNS, rows)
    for lane in answer.lanes:
        if lane.incident and lane.incident.features:
            listed = " ".join(map(feature_text, lane.incident.moved_most[:TOP_FEATURES]))
            emit_text(f"{cut(lane.lane.hook_name)}: {listed}")
        if lane.creep:
            emit_text("\n".join(f"{cut(lane.lane.hook_name)}: {line}" for line in lane.creep.lines(TOP_FEATURES)))
        if lane.labels:
            notice(f"{lane.lane.hook_name}: feature labels: {lane.labels}")


def _row(lane: LaneStatus) -> list[object]:
    return [
        lane.lane.hook_name,
        lane.state,
        lane.reason or lane.learning or None,
        lane.requests,
        _coverage(lane.coverage),
        _health(lane.health),
        _incident(lane.incident) if lane.incident else None,
        f"{lane.age_s:.1f} s",
    ]


def _coverage(coverage: Coverage) -> str:
    counted, seen = coverage.requests_counted, coverage.requests_seen
    share = f"{counted / seen:.1%} of {seen}" if seen else "no requests"
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(coverage.reasons.items(), key=lambda item: -item[1]))
    return share + (f" ({reasons})" if reasons else "")


def _health(health: Health) -> str | None:
    pairs = {
        "explained variance": (health.explained_variance, health.explained_variance_baseline),
        "L0": (health.l0, health.l0_baseline),
        "norm": (health.norm, health.norm_baseline),
    }
    measured = [
        f"{name} {now:.3g}" + (f" (was {was:.3g})" if was is not None else "")
        for name, (now, was) in pairs.items()
        if now is not None
    ]
    return ", ".join(measured) or None


def _incident(incident: IncidentCard) -> str:
    where = f"{incident.severity} since request {incident.opened_request}, {incident.features_drifted} features"
    return f"{where}, {incident.cause_hint}" if incident.cause_hint else where
