"""`bench`: the measurements of the source checkout that this package runs from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import stream_interp
from stream_interp.cli.options import JsonOption
from stream_interp.errors import UsageError

_ROOT = Path(stream_interp.__file__).parents[1]


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; none: all.")] = None,
    json: JsonOption = False,
) -> None:
    """Speeds and delays as ratios of two things measured in one run; with --json an object a row, with the environment.

    The names: encode, pipeline, kafka, versus_saelens_river, load, parts, delay.
    """
    if not (_ROOT / "tests/bench/run.py").is_file():
        raise UsageError(f"no tests/bench beside {_ROOT / 'stream_interp'}: run it from a source checkout")
    words = [sys.executable, "-m", "tests.bench.run", *(names or []), *(["--json"] if json else [])]
    raise typer.Exit(subprocess.run(words, cwd=_ROOT, check=False).returncode)
