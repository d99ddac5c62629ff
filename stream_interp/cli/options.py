"""Options that several commands share. A command passes what it got to `flags`, and that to `load_settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_interp.cli.proposals import setting_names
from stream_interp.errors import UsageError

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file in TOML (default: ./stream-interp.toml if it exists)."
    ),
]
BootstrapOption = Annotated[
    str | None, typer.Option("--bootstrap", metavar="HOST:PORT,…", help="Kafka (setting kafka.bootstrap).")
]
RedisOption = Annotated[
    str | None, typer.Option("--redis-url", metavar="URL", help="Redis or Valkey (setting redis.url).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting, such as drift.tolerance=1.3. May repeat.",
        autocompletion=setting_names,
    ),
]
HttpOption = Annotated[
    str | None,
    typer.Option("--http", metavar="HOST:PORT", help="Serve /livez, /readyz and /metrics, such as 127.0.0.1:9464."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, and nothing else there.")]


def flags(
    sets: list[str] | None = None,
    *,
    bootstrap: str | None = None,
    redis_url: str | None = None,
    **settings: object,
) -> dict[str, object]:
    """Overrides for `load_settings` from a command's options; those that were not given (None) are left out.

    Args:
        sets: the words of `--set`; a dedicated option wins over them.
        bootstrap: of `--bootstrap`.
        redis_url: of `--redis-url`.
        settings: further dotted names, with `__` for the dot: `drift__false_alarms_per_week=2.0`.

    Raises:
        UsageError: a word of `--set` that is not NAME=VALUE.
    """
    given: dict[str, object] = {"kafka.bootstrap": bootstrap, "redis.url": redis_url}
    given |= {name.replace("__", "."): value for name, value in settings.items()}
    return {**dict(map(_pair, sets or [])), **{name: value for name, value in given.items() if value is not None}}


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--set {word}: expected NAME=VALUE, such as --set drift.tolerance=1.3")
    return name.strip(), value
