"""`stream-interp demo`: a planted drift, found on a real Kafka, in a minute."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_interp.cli.interrupts import interrupted_by_sigterm
from stream_interp.cli.options import JsonOption
from stream_interp.cli.output import emit_json, err

DEFAULT_SEED = 1


def demo(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of applications, network and SAE.")] = DEFAULT_SEED,
    json: JsonOption = False,
) -> None:
    """See a planted drift found, on a real Kafka, in a minute; exits 1 if it was missed or something fired before."""
    from stream_interp.demo.narrative import Narrative
    from stream_interp.demo.story import tell

    with interrupted_by_sigterm():
        summary = tell(Narrative(err), seed)
    if json:
        emit_json(summary)
    if not summary.passed:
        raise typer.Exit(1)
