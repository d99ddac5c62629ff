"""`doctor`: does everything that a process needs answer, load and fit?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Literal

import typer
from msgspec import Struct

from stream_interp.cli.configuration import load_settings
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, RedisOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, notice
from stream_interp.cli.version import versions
from stream_interp.errors import DependencyUnreachable, StreamInterpError
from stream_interp.secret_files import read_secret
from stream_interp.settings import KafkaSettings, NotifySettings, RedisSettings, Settings, SinkSettings

_WORST_FIRST = (DependencyUnreachable.exit_code, StreamInterpError.exit_code)


class Check(Struct, frozen=True, kw_only=True):
    """One thing looked at. `exit_code` is what the command ends with if this is the worst."""

    name: str
    state: Literal["ok", "failed", "skipped"]
    detail: str
    exit_code: int = 0
    state_bytes_per_lane: int | None = None  # SAEs only: what each armed lane holds in DETECT


def doctor(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Addresses, topics, SAEs, memory, labels, keys, sinks, versions. Exit 5: a server is silent, 1: anything else."""
    settings = load_settings(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url))
    notice("checking Kafka, Redis, SAEs and sinks …")
    checks = examine(settings)
    exit_code = next((code for code in _WORST_FIRST if any(check.exit_code == code for check in checks)), 0)
    if json:
        emit_json({"schema_version": 1, "ok": exit_code == 0, "checks": checks, "versions": versions()})
    else:
        emit_table("", ["check", "state", "found"], [[check.name, check.state, check.detail] for check in checks])
        emit_table("", ["package", "version"], [[name, number] for name, number in versions().items()])
    raise typer.Exit(exit_code)


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order of the data's way. Never raises for what it looks at."""
    return [
        *_attempt("kafka", partial(_kafka, settings.kafka)),
        *_attempt("redis", partial(_redis, settings.redis)),
        *_saes(settings),
        *_labels(settings),
        *_examples(settings),
        *_attempt("routes", partial(_routes, settings.notify)),
        *(check for sink in settings.notify.sinks for check in _attempt("sink", partial(_sink, sink))),
    ]


def _attempt(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except StreamInterpError as error:
        code = error.exit_code if isinstance(error, DependencyUnreachable) else StreamInterpError.exit_code
        return [Check(name=name, state="failed", detail=str(error), exit_code=code)]


def _kafka(kafka: KafkaSettings) -> list[Check]:
    from stream_interp.kafka.client import address
    from stream_interp.kafka.topics import load_topics, plan_topics

    steps = plan_topics(kafka)
    # A count that somebody chose for an ordered topic is no fault; that twins differ is.
    own = {kafka.topic_prefix + topic.name: topic.name for topic in load_topics() if not topic.same_partitions_as}
    chosen = {own[step.topic]: step.partitions for step in steps if step.action == "refused" and step.topic in own}
    steps = plan_topics(kafka, chosen) if chosen else steps
    open_steps = [f"{step.topic} ({step.action})" for step in steps if step.action != "unchanged"]
    if open_steps:
        detail = f"`stream-interp topics plan` explains: {', '.join(open_steps)}"
        topics = Check(name="topics", state="failed", detail=detail, exit_code=StreamInterpError.exit_code)
    else:
        topics = Check(name="topics", state="ok", detail=f"all {len(steps)} as declared")
    return [Check(name="kafka", state="ok", detail=f"answers at {address(kafka)}"), topics]


def _redis(redis: RedisSettings) -> list[Check]:
    from stream_interp.status.connection import address, require_redis

    if not redis.url:
        return [Check(name="redis", state="skipped", detail="redis.url is empty: no look-up view")]
    password = read_secret(redis.password_file, "redis.password_file") if redis.password_file else None
    require_redis(redis.url, password=password)
    return [Check(name="redis", state="ok", detail=f"answers at {address(redis.url)}")]


def _saes(settings: Settings) -> list[Check]:
    paths = dict.fromkeys(site.sae for site in settings.sites if site.sae)
    if not paths:
        return [Check(name="sae", state="skipped", detail="no site names one: only raw activations are tested (T0)")]
    return [check for path in paths for check in _attempt("sae", partial(_sae, path, settings))]


def _sae(path: str, settings: Settings) -> list[Check]:
    from stream_interp.detect.state import armed_bytes
    from stream_interp.sae import load_encoder

    sae = load_encoder(path, device=settings.sae.device, max_memory_bytes=settings.sae.max_memory_bytes)
    requests = settings.baseline.requests
    size = armed_bytes(sae.d_sae, requests, [requests] * settings.unit.blocks)
    detail = f"{path}: d_in {sae.d_in}, {sae.d_sae} features, {sae.fingerprint[:16]}; {size:,} bytes of state per lane"
    return [Check(name="sae", state="ok", detail=detail, state_bytes_per_lane=size)]


def _labels(settings: Settings) -> list[Check]:
    paths = dict.fromkeys(site.feature_labels for site in settings.sites if site.feature_labels)
    return [check for path in paths for check in _attempt("labels", partial(_label_file, path))]


def _label_file(path: str) -> list[Check]:
    from stream_interp.detect.label_files import read_labels

    labels = read_labels(path)
    detail = f"{path}: {len(labels.texts):,} features of SAE {labels.fingerprint[:16]}"
    return [Check(name="labels", state="ok", detail=detail)]


def _examples(settings: Settings) -> list[Check]:
    hashed = any(site.examples == "hashed" for site in settings.sites)
    return _attempt("examples", partial(_example_key, settings.examples.key_file)) if hashed else []


def _example_key(path: str) -> list[Check]:
    from stream_interp.encode.sites import read_example_key

    read_example_key(path)
    return [Check(name="examples", state="ok", detail=f"{path}: request ids are hashed with the key in it")]


def _routes(notify: NotifySettings) -> list[Check]:
    from stream_interp.notify.routes import check_names

    check_names(notify)
    if not notify.sinks:
        return [Check(name="sink", state="skipped", detail="notify.sinks is empty: nobody is told of incidents")]
    told = f"{len(notify.routes)} routes" if notify.routes else "no routes: everything goes to every sink"
    return [Check(name="routes", state="ok", detail=told)]


def _sink(settings: SinkSettings) -> list[Check]:
    from stream_interp.notify.sinks import SinkTools, make_sink

    async def make() -> None:
        await make_sink(settings, SinkTools()).close()

    asyncio.run(make())
    test = "" if settings.type == "console" else f"; `stream-interp notify test {settings.name}` sends through it"
    return [Check(name="sink", state="ok", detail=f"{settings.name} ({settings.type}){test}")]
