"""Checks documents against JSON Schemas; says where and what is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from jsonschema.validators import validator_for

FOLDER = Path(__file__).parent


def vendored(name: str) -> dict[str, Any]:
    """The schema `name` of this folder, without `.json.gz`."""
    schema: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return schema


def faults(document: object, schema: dict[str, Any]) -> list[str]:
    """`place: what is wrong`, empty where the document is good."""
    validator = validator_for(schema)(schema)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:300]}" for e in validator.iter_errors(document)]
