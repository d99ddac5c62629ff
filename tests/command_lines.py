"""Command lines out of help texts and deploy files, parsed by the real command table without being run."""

import shlex
from typing import Any

from stream_interp.cli import app


def parse(line: str | list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its parsed options, of a line that begins with `stream-interp`.

    Raises what the command line would end with: an unknown command, option or value, a missing argument.
    """
    program, *words = shlex.split(line) if isinstance(line, str) else line
    assert program.rpartition("/")[2] == "stream-interp", line
    group, names = app.root(), []
    while True:
        words = group.with_default(words)
        context = group.make_context(group.name, [words[0]], resilient_parsing=True)
        name, command, _ = group.resolve_command(context, words)
        assert name, line
        names.append(name)
        words = words[1:]
        if not isinstance(command, app.LazyGroup):
            return " ".join(names), command.make_context(name, words).params
        group = command
        assert group.with_default(words), f"{line}: which of {', '.join(command.commands)}?"
