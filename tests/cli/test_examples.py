import re

import pytest

from stream_interp.cli import app, main
from stream_interp.cli.examples import EXAMPLES
from tests.command_lines import parse

NAMES = [row.name for row in app.COMMANDS]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_an_example_that_parses_and_ends_its_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in EXAMPLES, f"give {name!r} an example in cli/examples.py"
    assert parse(EXAMPLES[name])[0] == name
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*name.split(), "--help"]) == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out).strip()
    assert said.endswith(f"Example: {EXAMPLES[name]}")


def test_no_example_is_left_behind() -> None:
    assert set(EXAMPLES) == set(NAMES)


@pytest.mark.parametrize(
    "line",
    [
        "stream-interp rum",
        "stream-interp run --sea ./credit/sae",
        "stream-interp topics",
        "stream-interp status",
        "stream-interp completion tcsh",
        "stream-interp config show extra",
    ],
)
def test_the_parser_of_these_tests_refuses_what_the_command_line_would(line: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        parse(line)
