"""`version`: what runs here. Reads package metadata, so that it answers without loading torch."""

from __future__ import annotations

import platform
from importlib import metadata

from stream_interp.cli.options import JsonOption
from stream_interp.cli.output import emit_json, emit_table

PACKAGES = ("stream-interp", "torch", "numpy", "safetensors", "river", "confluent-kafka", "faust-streaming", "redis")


def versions() -> dict[str, str | None]:
    """Version by name, None where a package is not installed; `librdkafka` is the C library in the Kafka client."""
    from stream_interp.kafka.client import librdkafka_version

    installed = {name: _installed(name) for name in PACKAGES}
    return {**installed, "librdkafka": librdkafka_version(), "python": platform.python_version()}


def version(json: JsonOption = False) -> None:
    """Versions of this package and of what it stands on."""
    if json:
        emit_json({"schema_version": 1, "versions": versions()})
    else:
        emit_table("", ["package", "version"], [[name, number] for name, number in versions().items()])


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
