"""Every cause that an alert can carry has its page, and every command on the pages can be typed as printed."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import stream_interp.detect
from stream_interp.cli import app
from stream_interp.cli.ordering import duration_ms, signature
from stream_interp.detect.cause import CauseName
from stream_interp.notify.telling import SILENT_CAUSE
from stream_interp.records.alert import OF_LANE

RUNBOOKS = Path(__file__).parents[2] / "deploy" / "runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name not in {"README.md", "prometheus.md"})
SECTIONS = ["What it means", "Check first", "Likely causes", "How to end it", "What not to do"]
NOTIFY_CAUSES = {SILENT_CAUSE, "sink_failing"}


def causes_of_incidents() -> set[str]:
    return set(get_args(CauseName))


def causes_of_lanes() -> set[str]:
    """The last argument of every `lane_alert` and `fail` in DETECT, where it is written out or names a constant."""
    return set(itertools.chain.from_iterable(map(_written_causes, _detect_modules())))


def _detect_modules() -> list[str]:
    folder = Path(stream_interp.detect.__path__[0])
    return [f"stream_interp.detect.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]


def _written_causes(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"lane_alert", "fail"}
        ):
            continue
        for argument in node.args:
            value = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(argument, ast.Name) and argument.id.isupper():
                value = getattr(module, argument.id)
            if isinstance(value, str) and value not in {"critical", "info", "warning"}:
                yield value


def causes_of_unreadable_records() -> set[str]:
    from stream_interp.detect import partition

    return {value for name, value in vars(partition).items() if name.startswith(("UNREADABLE_", "MISSING_"))}


CAUSES = (causes_of_incidents() | causes_of_lanes() | causes_of_unreadable_records() | NOTIFY_CAUSES) - OF_LANE


def test_the_causes_in_the_code_are_found():
    assert {"data_shift", "sae_health", "no_windows", "clock", "not_stationary"} < CAUSES
    assert {"unreadable_window", "missing_baseline", "unreadable_baseline", "detector_silent"} < CAUSES


def test_every_cause_has_a_page_and_every_page_a_cause():
    assert {path.stem for path in PAGES} == CAUSES


def test_the_index_lists_every_page():
    listed = re.findall(r"\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text())
    assert set(listed) - {"prometheus"} == CAUSES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_sections_and_three_commands_to_check_first(path: Path):
    text = path.read_text()
    assert f"`cause: {path.stem}`" in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    first = text.split("## Check first")[1].split("## Likely causes")[0]
    assert len(commands(first)) == 3


def commands(text: str) -> list[str]:
    blocks = re.findall(r"^ *```\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


def every_command() -> list[tuple[str, str]]:
    return [(path.stem, line) for path in [*PAGES, RUNBOOKS / "README.md"] for line in commands(path.read_text())]


@pytest.mark.parametrize(("page", "command"), every_command())
def test_a_command_parses(page: str, command: str):
    program, *words = shlex.split(command.replace("VERSION", "1785225600000"))
    assert program == "stream-interp"
    group, found = app.root(), None
    while found is None:
        _, command_or_group, words = group.resolve_command(None, words)
        if hasattr(command_or_group, "commands"):
            group = command_or_group
        else:
            found = command_or_group
    given = found.make_context("command", words).params
    if "reason" in given:
        signature("ada", given["reason"])
    if given.get("for_"):
        assert duration_ms(given["for_"]) > 0
