"""`completion`: the script that makes a shell complete commands, options, settings, sinks and models on Tab."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from stream_interp.cli.output import emit_text

VARIABLE = "_STREAM_INTERP_COMPLETE"  # set by the script when it asks for proposals


class Shell(StrEnum):
    """The shells that are known."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Whose script.")]) -> None:
    """Print the completion script of a shell. bash: eval "$(stream-interp completion bash)" in ~/.bashrc; zsh the same
    in ~/.zshrc, after compinit; fish: stream-interp completion fish > ~/.config/fish/completions/stream-interp.fish
    """
    emit_text(get_completion_script(prog_name="stream-interp", complete_var=VARIABLE, shell=shell.value).strip())
