"""Every command of the README parses; `tests/integration/test_tour.py` runs those of the tour."""

import re
from pathlib import Path

import pytest

from tests.command_lines import parse

README = (Path(__file__).parents[2] / "README.md").read_text()


def commands() -> list[str]:
    """Out of the blocks of code: each on its own, without what the shell does around it."""
    blocks = "".join(re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    parts = [part.strip().removeprefix("do ") for line in blocks.splitlines() for part in line.split(";")]
    return [part.partition(" | ")[0] for part in parts if part.startswith("stream-interp ")]


def test_the_tour_is_found():
    names = {parse(line)[0] for line in commands()}
    assert {
        "dev",
        "config init",
        "produce",
        "run",
        "alerts ack",
        "baseline relearn",
        "evidence pack",
        "replay",
    } <= names


@pytest.mark.parametrize("line", commands())
def test_every_command_parses(line: str):
    parse(line)
