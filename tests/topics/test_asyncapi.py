"""What is published about the topics, read with the validators of others."""

import copy
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from stream_interp.kafka.topics import load_topics
from tests.topics.generate import TOPICS
from tests.vendored.schemas import FOLDER, faults, vendored

DOCUMENT = yaml.safe_load((TOPICS / "asyncapi.yaml").read_text())


def test_asyncapi_is_what_the_specification_says() -> None:
    assert faults(DOCUMENT, vendored("asyncapi-3.0.0")) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(asyncapi="2.6.0"),
        lambda d: d["info"].pop("title"),
        lambda d: d["channels"]["interp.alerts"].update(adress="x"),
        lambda d: d["operations"]["interp.alerts.write"].update(action="publish"),
        lambda d: d["channels"]["interp.alerts"]["bindings"]["kafka"].update(partitions=0),
        lambda d: d["components"]["messages"]["alert"].update(contentType=3),
    ],
)
def test_the_schema_sees_faults(spoil: Callable[[dict[str, Any]], object]) -> None:
    document = copy.deepcopy(DOCUMENT)
    spoil(document)
    assert faults(document, vendored("asyncapi-3.0.0")) != []


def test_vendored_schemas_are_the_ones_that_the_readme_names() -> None:
    rows = re.findall(r"\| `(\S+\.gz)` .* `([0-9a-f]{64})` \|", (FOLDER / "README.md").read_text())
    assert {name for name, _ in rows} == {path.name for path in FOLDER.glob("*.gz")}
    for name, digest in rows:
        assert hashlib.sha256(gzip.decompress((FOLDER / name).read_bytes())).hexdigest() == digest


@pytest.mark.parametrize("path", sorted((TOPICS / "schemas").iterdir()), ids=lambda path: path.name)
def test_our_schemas_are_schemas(path: Path) -> None:
    schema = json.loads(path.read_text())
    validator_for(schema).check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (message.schema, example)
        for topic in load_topics()
        for message in topic.records
        for example in message.examples
        if example.endswith(".json") and message.content_type.endswith("json")
    ],
)
def test_our_json_examples_are_what_their_schemas_say(schema: str, example: str) -> None:
    document = json.loads((TOPICS / "examples" / example).read_text())
    assert faults(document, json.loads((TOPICS / "schemas" / schema).read_text())) == []
