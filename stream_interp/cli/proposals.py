"""What Tab proposes for an argument: names out of the settings in effect. No server is asked."""

from __future__ import annotations

import os
from pathlib import Path

from stream_interp.errors import UsageError
from stream_interp.settings import Settings


def setting_names() -> list[str]:
    """`NAME=` of every setting, for `--set`."""
    from stream_interp.cli.setting_types import TYPES

    return [f"{name}=" for name in TYPES]


def sink_names() -> list[str]:
    """The sinks of `notify.sinks`."""
    return [sink.name for sink in _settings().notify.sinks]


def model_ids() -> list[str]:
    """The models that `sites` names without a glob."""
    return [site.model_id for site in _settings().sites if not set(site.model_id) & set("*?[")]


def _settings() -> Settings:
    from stream_interp.cli.configuration import load

    try:
        return load(None, {}, os.environ, Path()).settings
    except UsageError:
        return Settings()  # a shell that waits for proposals is not the place to explain
