"""`config show`: every setting, its value and where it came from."""

from __future__ import annotations

import os
from pathlib import Path

from stream_interp.cli.configuration import load, values
from stream_interp.cli.options import BootstrapOption, ConfigOption, JsonOption, RedisOption, SetOption, flags
from stream_interp.cli.output import emit_json, emit_table
from stream_interp.cli.setting_types import shown


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
