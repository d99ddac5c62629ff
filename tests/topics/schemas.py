"""The JSON Schema of every record, from its type; and what a new version of one may not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stream_interp.records import window
from stream_interp.records.alert import AlertEvent, AlertState
from stream_interp.records.annotation import AnnotationEvent
from stream_interp.records.checkpoint import CheckpointManifest
from stream_interp.records.control import BaselineHeader, EvidenceRoot, Manifest, Marker, Order, ProjectorHeader
from stream_interp.records.cut import Cut
from stream_interp.records.delivery import Delivery
from stream_interp.records.dlq import DeadLetter
from stream_interp.records.example import Example
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.records.status import Status
from tests.topics.samples import SAMPLES

Schema = dict[str, Any]
Arrays = Mapping[str, tuple[str, str]]  # name → (dtype, shape and unit)

JSON_RECORDS: dict[str, type[msgspec.Struct]] = {
    "alert": AlertEvent,
    "alert_state": AlertState,
    "annotation": AnnotationEvent,
    "checkpoint_manifest": CheckpointManifest,
    "control_manifest": Manifest,
    "cut": Cut,
    "dead_letter": DeadLetter,
    "delivery": Delivery,
    "evidence_root": EvidenceRoot,
    "example": Example,
    "heartbeat": Heartbeat,
    "marker": Marker,
    "order": Order,
    "status": Status,
}
PROJECTOR_ARRAYS = {
    "mean": ("float32", "[r], tokens' mean in the moment coordinates"),
    "whitening": ("float32", "[kept_directions, r]"),
    "cap": ("float32", "[d_sae], activation units; cap_f of the magnitude sums"),
    "surprise": ("float32", "optional: [d_sae], nats; -log of the share of fit requests in which the feature fired"),
}
BASELINE_ARRAYS = {
    "requests_fired": ("int64", "[d_sae], calibration requests in which the feature fired"),
    "calibration_scores": ("float32", window.ARRAYS["request_scores"][1]),
    "mag_sum": ("float64", "optional: [d_sae], Σ mag_sum of the calibration windows"),
    "length_histogram": ("int64", "optional: [bins], as of windows; of all requests that passed while it was counted"),
    "start_histogram": ("int64", "optional: [bins], as length_histogram"),
    "hour_requests": ("int64", "optional: [168], calibration requests by hour of the week, UTC, Monday 0h first"),
    "hour_fired": ("float64", "optional: [168], Σ over features of requests_fired, as hour_requests"),
    "STRATUM.requests_fired": ("int64", "as requests_fired, of each stratum in `strata`"),
    "STRATUM.mag_sum": ("float64", "as mag_sum, of each stratum in `strata`"),
    "STRATUM.calibration_scores": ("float32", "as calibration_scores, of each stratum in `strata`"),
}
ARRAY_RECORDS: dict[str, tuple[type[msgspec.Struct], Arrays]] = {
    "window": (window.WindowHeader, window.ARRAYS),
    "projector": (ProjectorHeader, PROJECTOR_ARRAYS),
    "baseline": (BaselineHeader, BASELINE_ARRAYS),
}
SNAPSHOT_ARRAYS = {
    "acts": ("float16 | bfloat16 | float32", "[n_tokens, d_in], finite"),
    "acts_out": ("float16 | bfloat16 | float32", "optional: [n_tokens, d_out], for transcoders"),
    "positions": ("int32", "optional: [n_tokens], token positions in the request"),
    "special_mask": ("bool", "optional: [n_tokens], true for tokens that are not counted"),
}
SNAPSHOT_HEADERS = {
    "content-type": "application/vnd.safetensors",
    "ce_specversion": "1.0",
    "ce_type": "interp.activation.snapshot.v1",
    "ce_id": "hash of tenant, model, hook, revision, request and chunk",
    "ce_source": "/tenant/model_id",
    "ce_time": "RFC 3339, when it was captured",
    "ce_tenant": "default: default",
    "ce_modelid": "model_id",
    "ce_modelrevision": "model_revision; default: unversioned",
    "ce_hookname": "hook_name",
    "ce_requestid": "request_id, equal to the record key",
    "ce_groupkey": "the same for requests that hang together, of one session or customer; default: of none",
    "ce_segment": "the part of the traffic that it belongs to, by a name that alerts show; default: it names none",
    "ce_chunk": "this is chunk k of n, counted from 0",
    "ce_chunks": "n",
    "ce_tokens": "tokens of the whole request, over all its chunks",
}
_OPTIONAL_HEADERS = {"ce_id", "ce_source", "ce_time", "ce_tenant", "ce_modelrevision", "ce_groupkey", "ce_segment"}


def all_schemas() -> dict[str, Schema]:
    """File name → schema."""
    found = {name: msgspec.json.schema(record) for name, record in JSON_RECORDS.items()}
    for name, (header, arrays) in ARRAY_RECORDS.items():
        found[name] = msgspec.json.schema(header) | {
            "$comment": "the JSON in the safetensors metadata entry `header`; x-arrays are the tensors beside it",
            "x-arrays": _arrays(arrays),
        }
    found["snapshot"] = _snapshot()
    return {f"{name}.v1.schema.json": _head(name) | schema for name, schema in sorted(found.items())}


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What a reader of `old` could not bear in `new`: fields that are gone, retyped, or newly required.

    New optional fields and new words of an enumeration are additions: upgrade readers first.
    """
    arrays_old, arrays_new = old.get("x-arrays", {}), new.get("x-arrays", {})
    arrays = [
        f"array {name}: was {old_array['dtype']}, is {arrays_new.get(name, {}).get('dtype', 'gone')}"
        for name, old_array in arrays_old.items()
        if old_array["dtype"] != arrays_new.get(name, {}).get("dtype")
    ]
    return arrays + list(_compare(old, new, old, new, ""))


def _compare(old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str) -> Iterator[str]:
    old, new = _resolve(old, old_root), _resolve(new, new_root)
    if old.get("type") != new.get("type"):
        yield f"{path or 'record'}: was {old.get('type', 'a union')}, is {new.get('type', 'a union')}"
        return
    for word in old.get("enum", []):
        if word not in new.get("enum", []):
            yield f"{path}: {word!r} is gone"
    fields_old, fields_new = old.get("properties", {}), new.get("properties", {})
    for name in set(new.get("required", [])) - set(old.get("required", [])):
        yield f"{path}.{name}: newly required"
    for name, field in fields_old.items():
        if name not in fields_new:
            yield f"{path}.{name}: removed or renamed"
        else:
            yield from _compare(field, fields_new[name], old_root, new_root, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(old.get(keyword), dict):
            yield from _compare(old[keyword], new.get(keyword) or {}, old_root, new_root, f"{path}[]")
    yield from _compare_unions(old, new, old_root, new_root, path)


def _compare_unions(old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str) -> Iterator[str]:
    for keyword in ("anyOf", "prefixItems"):
        branches, new_branches = old.get(keyword, []), new.get(keyword, [])
        if len(branches) != len(new_branches):
            yield f"{path}: had {len(branches)} alternatives, has {len(new_branches)}"
        for branch, new_branch in zip(branches, new_branches, strict=False):
            yield from _compare(branch, new_branch, old_root, new_root, path)


def _resolve(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def _head(name: str) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{name}.v1.schema.json"}


def _arrays(arrays: Arrays) -> Schema:
    return {name: {"dtype": dtype, "description": text} for name, (dtype, text) in arrays.items()}


def _snapshot() -> Schema:
    sample = dict(next(s for s in SAMPLES if s.file == "snapshot.safetensors").envelope.headers)
    constant = {"content-type", "ce_specversion", "ce_type"}
    headers = {
        name: {"const": sample[name].decode()} if name in constant else {"type": "string", "description": text}
        for name, text in SNAPSHOT_HEADERS.items()
    }
    return {
        "title": "Snapshot",
        "$comment": "the record's Kafka headers, UTF-8; x-arrays are the tensors of its value",
        "type": "object",
        "properties": headers,
        "required": [name for name in headers if name not in _OPTIONAL_HEADERS],
        "x-arrays": _arrays(SNAPSHOT_ARRAYS),
    }
