"""What lies under `topics/`: complete, equal to what the code says, and readable by the real decoders."""

import json
import re

import msgspec
import pytest
import yaml

from stream_interp.kafka.topic_plan import Topic
from stream_interp.kafka.topics import load_topics
from stream_interp.records.alert import decode_alert
from stream_interp.records.control import ControlReader, Manifest, read_baseline, read_projector
from stream_interp.records.envelope import read_json
from stream_interp.records.snapshot import decode_snapshot
from stream_interp.records.window import ARRAYS, decode_window
from tests.topics import samples
from tests.topics.generate import TOPICS, broken, generated
from tests.topics.schemas import BASELINE_ARRAYS, JSON_RECORDS, PROJECTOR_ARRAYS, SNAPSHOT_HEADERS, breaking_changes

DESIGN = {
    "interp.activations", "interp.windows", "interp.cuts", "interp.state", "interp.alerts", "interp.alert-state",
    "interp.status", "interp.control", "interp.heartbeat", "interp.dlq", "interp.deliveries", "interp.examples",
}  # fmt: skip
ORDERED = {f"interp.{n}" for n in ("activations", "windows", "state", "status", "alert-state", "control")}
YEAR_MS = 365 * 24 * 3600 * 1000
TOPIC = {topic.name: topic for topic in load_topics()}


def test_every_topic_of_the_design_is_defined_in_a_file_of_its_name():
    assert set(TOPIC) == DESIGN
    assert {path.stem for path in TOPICS.glob("interp.*.yaml")} == DESIGN


def test_exactly_the_topics_whose_order_matters_are_ordered_and_say_what_a_migration_carries_over():
    assert {t.name for t in TOPIC.values() if t.ordered} == ORDERED == {t.name for t in TOPIC.values() if t.backfill}


def test_state_lies_beside_windows():
    assert TOPIC["interp.state"].same_partitions_as == "interp.windows"
    assert TOPIC["interp.state"].partitions == TOPIC["interp.windows"].partitions


@pytest.mark.parametrize("name", ["interp.windows", "interp.cuts", "interp.alerts"])
def test_what_audit_needs_is_kept_for_a_year(name: str):
    assert TOPIC[name].config["cleanup.policy"] == "delete"
    assert int(TOPIC[name].config["retention.ms"]) >= YEAR_MS


@pytest.mark.parametrize("name", ["state", "alert-state", "status", "control", "deliveries"])
def test_the_last_word_is_compacted(name: str):
    assert TOPIC[f"interp.{name}"].config["cleanup.policy"] == "compact"


@pytest.mark.parametrize("name", ["activations", "examples", "heartbeat"])
def test_what_may_be_personal_is_kept_for_hours(name: str):
    assert int(TOPIC[f"interp.{name}"].config["retention.ms"]) <= 24 * 3600 * 1000


def test_examples_go_with_the_requests_they_name():
    examples, activations = (TOPIC[f"interp.{name}"].config for name in ("examples", "activations"))
    assert {k: examples[k] for k in ("retention.ms", "segment.ms")} == {
        k: activations[k] for k in ("retention.ms", "segment.ms")
    }


@pytest.mark.parametrize("name", ["windows", "control"])
def test_what_is_judged_by_its_time_carries_the_brokers_clock(name: str):
    assert TOPIC[f"interp.{name}"].config["message.timestamp.type"] == "LogAppendTime"


def test_a_slip_in_a_definition_is_refused():
    text = (TOPICS / "interp.cuts.yaml").read_text().replace("partitions:", "partition:")
    with pytest.raises(msgspec.ValidationError, match="partition"):
        msgspec.yaml.decode(text, type=Topic)


def test_schemas_and_examples_that_definitions_name_exist_and_no_others():
    records = [record for topic in TOPIC.values() for record in topic.records]
    assert {path.name for path in (TOPICS / "schemas").iterdir()} == {r.schema for r in records}
    named = {name for r in records for name in r.examples}
    assert {p.name for p in (TOPICS / "examples").iterdir() if not p.name.endswith(".headers.json")} == named


def test_committed_schemas_bear_the_codes_records():
    assert broken() == []


def test_committed_files_equal_the_code():
    stale = [name for name, content in generated().items() if (TOPICS / name).read_bytes() != content]
    assert stale == [], "run `python -m tests.topics.generate` and commit topics/"


def example(name: str) -> bytes:
    return (TOPICS / "examples" / name).read_bytes()


def headers(name: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    record = json.loads(example(f"{name}.headers.json"))
    return record["key"].encode(), [(k, v.encode()) for k, v in record["headers"].items()]


@pytest.mark.parametrize("name", ["snapshot", "snapshot_chunk"])
def test_example_snapshots_decode(name: str):
    key, ce = headers(name)
    snapshot = decode_snapshot(key, ce, example(f"{name}.safetensors"), 10_000)
    assert snapshot.request_id == key.decode()
    assert snapshot.acts.shape[1] == samples.D_IN


def described(array: str) -> str:
    """Its name in the schema: those of strata are told of once."""
    stratum, _, name = array.partition(".")
    return f"STRATUM.{name}" if name else stratum


@pytest.mark.parametrize("name", ["window", "window_fit"])
def test_example_windows_decode_and_their_arrays_are_the_documented_ones(name: str):
    window = decode_window(example(f"{name}.safetensors"))
    assert window.header.lane == samples.LANE
    assert {described(k): str(v.dtype) for k, v in window.arrays.items()} == {
        described(k): ARRAYS[described(k)][0] for k in window.arrays
    }


def test_examples_show_every_array_of_a_window():
    assert {described(k) for k in samples.WINDOW.arrays | samples.WINDOW_FIT.arrays} == set(ARRAYS)


def test_example_baseline_decodes_through_the_control_reader():
    reader = ControlReader()
    key, _ = headers("baseline")
    assert reader.add(key.decode(), example("baseline.safetensors")) is None
    manifest = example("control_manifest.json")
    whole = reader.add(read_json(manifest, Manifest).key + "/manifest", manifest)
    assert whole is not None
    header, arrays = read_baseline(whole)
    assert header == read_baseline(samples.BASELINE)[0]
    assert {described(k): str(v.dtype) for k, v in arrays.items()} == {k: v[0] for k, v in BASELINE_ARRAYS.items()}


def test_example_projector_has_the_documented_arrays():
    _, arrays = read_projector(samples.PROJECTOR)
    assert samples.PROJECTOR.body == example("projector.safetensors")
    assert {k: str(v.dtype) for k, v in arrays.items()} == {k: v[0] for k, v in PROJECTOR_ARRAYS.items()}


@pytest.mark.parametrize("sample", [s for s in samples.SAMPLES if s.file.endswith(".json")], ids=lambda s: s.file)
def test_json_examples_decode_to_what_was_encoded(sample: samples.Sample):
    record = next(r.schema.partition(".")[0] for t in TOPIC.values() for r in t.records if sample.file in r.examples)
    decoded = read_json(example(sample.file), JSON_RECORDS[record])
    assert decoded == read_json(sample.envelope.value, JSON_RECORDS[record])


def test_example_alert_decodes():
    assert decode_alert(example("alert.json")) == samples.ALERT


def test_snapshot_headers_are_the_documented_ones():
    assert {name for name, _ in headers("snapshot")[1]} == set(SNAPSHOT_HEADERS)


@pytest.mark.parametrize("sample", samples.SAMPLES, ids=lambda s: s.file)
def test_record_types_on_the_wire_are_those_of_the_definitions(sample: samples.Sample):
    declared = {(r.type, r.content_type) for t in TOPIC.values() for r in t.records if sample.file in r.examples}
    wire = {name: value.decode() for name, value in sample.envelope.headers}
    ce_type = wire.get("ce_type") or json.loads(sample.envelope.value or b"")["type"]
    assert declared == {(ce_type, wire["content-type"].partition(";")[0])}


OLD = {"$ref": "#/$defs/R", "$defs": {"R": {"type": "object", "required": ["a"], "properties": {
    "a": {"type": "integer"}, "b": {"enum": ["x", "y"]}, "c": {"type": "array", "items": {"$ref": "#/$defs/S"}}}},
    "S": {"type": "object", "properties": {"d": {"type": "string"}}, "required": []}}}  # fmt: skip


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ('"a": {', '"renamed": {', ".a: removed or renamed"),
        ('"a": {"type": "integer"}', '"a": {"type": "string"}', ".a: was integer, is string"),
        ('"required": ["a"]', '"required": ["a", "b"]', ".b: newly required"),
        ('["x", "y"]', '["x"]', ".b: 'y' is gone"),
        ('"d": {', '"e": {', ".c[].d: removed or renamed"),
    ],
)
def test_changes_that_break_readers_are_found(find: str, put: str, message: str):
    changed = json.dumps(OLD).replace(find, put)
    assert message in breaking_changes(OLD, json.loads(changed))


def test_additions_are_no_break():
    new = json.dumps(OLD).replace('"a": {', '"new": {"type": "null"}, "a": {').replace('["x", "y"]', '["x", "y", "z"]')
    assert breaking_changes(OLD, json.loads(new)) == []


def test_arrays_may_not_go_or_change_their_dtype():
    old = {"x-arrays": {"a": {"dtype": "int32"}, "b": {"dtype": "int32"}}}
    new = {"x-arrays": {"a": {"dtype": "int64"}, "c": {"dtype": "int32"}}}
    assert breaking_changes(old, new) == ["array a: was int32, is int64", "array b: was int32, is gone"]


def test_asyncapi_document_is_whole():
    document = yaml.safe_load((TOPICS / "asyncapi.yaml").read_text())
    assert re.fullmatch(r"3\.\d+\.\d+", document["asyncapi"])
    assert set(document["info"]) >= {"title", "version"}
    assert {c["address"] for c in document["channels"].values()} == DESIGN
    for name, channel in document["channels"].items():
        kafka = channel["bindings"]["kafka"]
        assert (kafka["topic"], kafka["partitions"]) == (name, TOPIC[name].partitions)
        assert len(channel["messages"]) == len(TOPIC[name].records)
    for message in document["components"]["messages"].values():
        assert (TOPICS / message["payload"]["$ref"]).is_file()
        assert all((TOPICS / file).is_file() for file in message["x-examples"])


def test_asyncapi_references_resolve():
    document = yaml.safe_load((TOPICS / "asyncapi.yaml").read_text())

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for item in node for r in references(item)] if isinstance(node, list) else []

    for reference in references(document):
        if reference.startswith("#/"):
            target = document
            for part in reference[2:].split("/"):
                target = target[part]
