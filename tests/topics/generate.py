"""Writes `topics/schemas`, `topics/examples` and `topics/asyncapi.yaml`: `python -m tests.topics.generate`.

It refuses to write a schema that a reader of the committed one could not bear.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from stream_interp.kafka.topics import load_topics
from stream_interp.records.envelope import Envelope
from tests.topics.asyncapi import asyncapi
from tests.topics.samples import SAMPLES
from tests.topics.schemas import all_schemas, breaking_changes

TOPICS = Path(__file__).parents[2] / "topics"


def generated() -> dict[str, bytes]:
    """Path under `topics/` → content."""
    out = {f"schemas/{name}": _json(schema) for name, schema in all_schemas().items()}
    for sample in SAMPLES:
        value = sample.envelope.value or b""
        if sample.file.endswith(".json"):
            out[f"examples/{sample.file}"] = _json(json.loads(value))
        else:
            out[f"examples/{sample.file}"] = value
            out[f"examples/{Path(sample.file).stem}.headers.json"] = _json(_key_and_headers(sample.envelope))
    text = yaml.safe_dump(asyncapi(load_topics()), sort_keys=False, width=120, allow_unicode=True)
    out["asyncapi.yaml"] = f"# Written by `python -m tests.topics.generate`; do not edit.\n{text}".encode()
    return out


def broken() -> list[str]:
    """What of the committed schemas the code's would break, with what to do about it."""
    found = []
    for name, schema in all_schemas().items():
        path = TOPICS / "schemas" / name
        changes = breaking_changes(json.loads(path.read_bytes()), schema) if path.exists() else []
        found += [
            f"{name}: {change}: bump the version (a v2 beside v1) or make it additive; "
            "a schema that was never released may be deleted and written anew"
            for change in changes
        ]
    return found


def main() -> None:
    """Writes the files, or exits 1 with what would break."""
    if found := broken():
        sys.exit("\n".join(found))
    for name, content in generated().items():
        path = TOPICS / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _key_and_headers(envelope: Envelope) -> dict[str, object]:
    return {"key": envelope.key.decode(), "headers": {name: value.decode() for name, value in envelope.headers}}


if __name__ == "__main__":
    main()
