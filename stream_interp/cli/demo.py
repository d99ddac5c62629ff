"""`stream-interp demo`: a planted drift, found on a real Kafka, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_interp.cli.interrupts import interrupted_by_sigterm
from stream_interp.cli.options import JsonOption
from stream_interp.cli.output import emit_json, err, notice

DEFAULT_SEED = 1


def demo(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of applications, network and SAE.")] = DEFAULT_SEED,
    files: Annotated[
        Path | None,
        typer.Option("--files", metavar="DIR", help="Only write the SAE and activation files there, for a first try."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """See a planted drift found, on a real Kafka, in a minute; exits 1 if it was missed or something fired before."""
    if files is not None:
        _write(files, seed, json)
        return
    from stream_interp.demo.narrative import Narrative
    from stream_interp.demo.story import tell

    with interrupted_by_sigterm():
        summary = tell(Narrative(err), seed)
    if json:
        emit_json(summary)
    if not summary.passed:
        raise typer.Exit(1)


def _write(folder: Path, seed: int, json: bool) -> None:
    from stream_interp.demo.files import write_files

    written = {name: str(path) for name, path in vars(write_files(folder, seed)).items()}
    if json:
        emit_json({"schema_version": 1, **written})
    else:
        for name, path in written.items():
            notice(f"{name:<9} {path}")
