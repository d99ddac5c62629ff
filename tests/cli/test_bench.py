"""`stream-interp bench`: its names are those of tests/bench; bad ones are a usage error."""

from __future__ import annotations

import json

import pytest

from stream_interp.cli import main
from stream_interp.cli.bench import bench
from tests.bench.measure import Row, as_json, compare, environment
from tests.bench.run import BENCHES


def test_the_names_in_its_help_are_those_there_are() -> None:
    assert bench.__doc__ is not None
    named = bench.__doc__.partition("The names: ")[2].strip().rstrip(".").split(", ")
    assert named == list(BENCHES)


def test_an_unknown_name_is_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nosuch"]) == 2
    assert "no bench 'nosuch'" in capfd.readouterr().err


def test_a_row_says_what_it_is_a_ratio_to_and_where() -> None:
    calls: list[str] = []
    row = compare("a", lambda: calls.append("ours"), lambda: calls.append("other"), "b", items=5, unit="things/s")
    assert calls[::2] == ["ours"] * (len(calls) // 2)
    assert calls[1::2] == ["other"] * (len(calls) // 2)
    told = json.loads(json.dumps(as_json(row, environment())))
    assert {"name", "value", "unit", "ratio", "ratio_low", "ratio_high", "ratio_to", "environment"} == set(told)
    assert told["environment"]["cores"] >= 1
    assert told["ratio_low"] <= told["ratio"] <= told["ratio_high"]
    assert "of b" in str(row)
    assert "of" not in str(Row("x", 1.0, "s")).split("s")[-1]
