"""Where a command speaks: data on stdout, everything else on stderr. The only module that writes to either."""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_interp.records.text import inert

out = Console(soft_wrap=True)  # what a person reads on stdout, such as a table; never with --json
err = Console(stderr=True)  # notices, progress bars, live tables

_pipe = Console(width=1_000)  # a pipe has no width: one row, one line


def emit_json(value: object) -> None:
    """One line of JSON on stdout, flushed. Takes msgspec structs, dicts, lists and scalars; NaN becomes null."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def emit_text(text: str) -> None:
    """One line of data on stdout, without colour or wrapping."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def emit_table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """A table on stdout. Cells are shown as they are, inert and never read as markup; None is shown as a dash."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else escape(inert(str(cell))) for cell in row))
    (out if out.is_terminal else _pipe).print(table)


def notice(text: str, style: str | None = None) -> None:
    """One line for the person at the terminal, on stderr; inert, whatever names it holds."""
    err.print(escape(inert(text)), highlight=False, soft_wrap=True, style=style)


def warn(text: str) -> None:
    """A notice in yellow."""
    notice(f"warning: {text}", style="yellow")


def fail(text: str) -> None:
    """The one red line before a command ends with an error."""
    notice(f"error: {text}", style="bold red")
