"""`config init` writes a commented settings file; `config show` says what is in effect and where it came from."""

from __future__ import annotations

import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from stream_interp.cli.configuration import DEFAULT_FILE, load, values
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, RedisOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table, notice
from stream_interp.cli.setting_types import shown
from stream_interp.errors import UsageError


def show(
    config: ConfigOption = None,
    sets: SetOption = None,
    bootstrap: BootstrapOption = None,
    redis_url: RedisOption = None,
    json: JsonOption = False,
) -> None:
    """Every setting, its value and where it came from: default, file:line, variable or flag. Secrets are hidden."""
    loaded = load(config, flags(sets, bootstrap=bootstrap, redis_url=redis_url), os.environ, Path())
    rows = {
        name: {"value": shown(name, value), "origin": loaded.origins.get(name, "default")}
        for name, value in values(loaded.settings).items()
    }
    if json:
        emit_json({"schema_version": 1, "settings": rows})
    else:
        emit_table("", ["setting", "value", "origin"], [[name, *row.values()] for name, row in rows.items()])


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write.")] = Path(DEFAULT_FILE),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented settings file with two sites; every setting stands in it with its unit and default."""
    path = path / DEFAULT_FILE if path.is_dir() else path
    text = files("stream_interp.cli").joinpath("starter.toml").read_text(encoding="utf-8")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already; name another file, or overwrite it with --force") from None
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror}; name a file in a folder you may write"
        ) from None
    flag = "" if path == Path(DEFAULT_FILE) else f" --config {shlex.quote(str(path))}"
    notice(f"wrote {path}: edit its [[sites]], then")
    for command in ("config show", "doctor", "topics apply", "run"):
        notice(f"  stream-interp {command}{flag}")
