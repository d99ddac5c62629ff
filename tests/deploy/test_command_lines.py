"""Every command line in these files is one that `stream-interp` takes."""

import pytest

from tests.command_lines import parse
from tests.deploy.deployed import UNITS, Line, command_lines, workloads

LINES = command_lines()
PROCESSES = {"encode", "detect", "notify", "ui"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.where)
def test_it_parses(line: Line) -> None:
    parse(line.words)


def test_every_kind_of_file_has_its_lines() -> None:
    assert {line.words[1] for line in LINES if line.where.startswith("docker-compose.yml: ")} == PROCESSES | {
        "topics",
        "baseline",
        "demo",
        "produce",
    }
    assert {line.words[1] for line in LINES if line.where.startswith("kubernetes: ")} == PROCESSES
    assert {line.words[1] for line in LINES if line.where.endswith(".service")} == PROCESSES
    assert (len(UNITS), len(workloads())) == (4, 4)
