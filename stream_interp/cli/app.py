"""The table of commands. A command's module is imported when it is invoked, so that `version` does not load torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import typer
from rich.markup import escape
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperCommand, TyperGroup

from stream_interp.cli.examples import EXAMPLES


class Row(NamedTuple):
    """One command: its words, where its function is, and the line shown for it in `--help`."""

    name: str
    target: str  # module:function
    help: str


_CLI = "stream_interp.cli"

COMMANDS = (
    Row("demo", f"{_CLI}.demo:demo", "See a planted drift found, on a real Kafka, in a minute."),
    Row("dev", f"{_CLI}.dev:dev", "Start a local Kafka and Valkey in the foreground, for development."),
    Row("run", f"{_CLI}.run:run", "Encode and detect in one process."),
    Row("encode", f"{_CLI}.run:encode", "Activations to windows."),
    Row("detect", f"{_CLI}.run:detect", "Windows to alerts and status."),
    Row("produce", f"{_CLI}.produce:produce", "Replay a file of activations into Kafka."),
    Row("status", f"{_CLI}.status:status", "The status of a model's lanes."),
    Row("examples", f"{_CLI}.live_examples:examples", "Requests in which the features of a lane fired."),
    Row("ui", f"{_CLI}.ui:ui", "One read-only web page: lanes, incidents and their story."),
    Row("top", f"{_CLI}.top:top", "The same at a glance, in a terminal."),
    Row("alerts list", f"{_CLI}.alerts:list_", "Incidents as they stand, the newest first."),
    Row("alerts show", f"{_CLI}.alerts:show", "One incident: what moved, its story, what to do next."),
    Row("alerts ack", f"{_CLI}.orders:ack", "You have an incident in hand."),
    Row("alerts silence", f"{_CLI}.orders:silence", "Hold back notifications of a lane for a time."),
    Row("alerts unsilence", f"{_CLI}.orders:unsilence", "End a silence before its time."),
    Row("alerts resolve", f"{_CLI}.orders:resolve", "End an open incident on your word."),
    Row("alerts tail", f"{_CLI}.alerts:tail", "Follow the alerts."),
    Row("evidence pack", f"{_CLI}.evidence:pack", "Pack an incident; `evidence INCIDENT --out DIR` does the same."),
    Row("evidence verify", f"{_CLI}.evidence:verify", "Whether a pack was changed since it was made."),
    Row("replay", f"{_CLI}.evidence:replay", "Replay a pack without Kafka: the same transitions must come again."),
    Row("notify run", f"{_CLI}.notify:run", "Tell people of alerts; `notify` alone does the same."),
    Row("notify test", f"{_CLI}.notify:try_sink", "Send a marked test alert to one sink."),
    Row("topics plan", f"{_CLI}.topics:plan", "What `apply` would create or change."),
    Row("topics apply", f"{_CLI}.topics:apply", "Create and configure the topics; never deletes."),
    Row("baseline build", f"{_CLI}.baseline:build", "Make a baseline from a file and publish it."),
    Row("baseline list", f"{_CLI}.baseline:list_", "Every version, which is in effect, who made it and why."),
    Row("baseline show", f"{_CLI}.baseline_show:show", "The card of a baseline: what it can see, and what not."),
    Row("baseline diff", f"{_CLI}.baseline_diff:diff", "What two baselines of a lane disagree on."),
    Row("baseline promote", f"{_CLI}.baseline_orders:promote", "Judge a lane by another of its baselines."),
    Row("baseline rollback", f"{_CLI}.baseline_orders:rollback", "Back to the baseline before."),
    Row("baseline relearn", f"{_CLI}.baseline_orders:relearn", "A wanted change: the lane learns again."),
    Row("baseline approve", f"{_CLI}.baseline_orders:approve", "What later baselines are compared with."),
    Row("backtest", f"{_CLI}.backtest:backtest", "The same tests on files, without Kafka."),
    Row("calibrate", f"{_CLI}.calibrate:calibrate", "False alarms against the budget, and what can be seen how soon."),
    Row("evaluate", f"{_CLI}.evaluate:evaluate", "Planted drifts on your requests: delay, misses, false alarms."),
    Row("bench", f"{_CLI}.bench:bench", "Measure this machine: speeds as ratios, from a source checkout."),
    Row("sae inspect", f"{_CLI}.sae:inspect", "What a checkpoint is, and whether it fits activations."),
    Row("sae convert", f"{_CLI}.sae:convert", "A pickle that you trust becomes safetensors that `load` reads."),
    Row("doctor", f"{_CLI}.doctor:doctor", "Check addresses, topics, versions, SAEs and memory."),
    Row("config init", f"{_CLI}.config:init", "Write a commented settings file."),
    Row("config show", f"{_CLI}.config:show", "Every setting, its value and where it came from."),
    Row("completion", f"{_CLI}.completion:completion", "Print the completion script of a shell."),
    Row("version", f"{_CLI}.version:version", "Versions of this package and of what it stands on."),
)

GROUPS = {
    "alerts": "Incidents: what they are, and what to say of them.",
    "evidence": "An incident as a folder: what it takes to replay it, under a published hash.",
    "notify": "Alerts to people: webhooks, Alertmanager, chat, pagers, email.",
    "topics": "The topics on Kafka.",
    "baseline": "What a lane is judged by.",
    "sae": "Checkpoints of sparse autoencoders and transcoders.",
    "config": "The settings: a file to begin with, and what is in effect.",
}

DEFAULTS = {"evidence": "pack", "notify": "run"}  # of a group: the command that is meant where no other is named
ALONE = {"notify"}  # whose default needs no further word

EPILOG = (
    "Exit codes: 0 ok, 1 error, 2 usage, 3 drift at or above --fail-on, 4 blind or unknown, 5 dependency unreachable, "
    "6 integrity. Add --debug (or STREAM_INTERP_DEBUG=1) to any command to see the traceback of an error."
)


class LazyGroup(TyperGroup):
    """A group that lists its commands from the table and imports only the one that is invoked."""

    rows: dict[str, Row]

    def with_default(self, args: list[str]) -> list[str]:
        """The words with the group's default command before them, where they begin with none of its commands."""
        default = DEFAULTS.get(self.name or "")
        if default is None or (not args and self.name not in ALONE):
            return args
        return args if args and args[0] in {*self.commands, "--help"} else [default, *args]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As ever, but for the default command."""
        return super().parse_args(ctx, self.with_default(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to invoke; its module is imported here and nowhere else."""
        name, command, rest = super().resolve_command(ctx, args)
        row = self.rows.get(name or "")
        return name, _load(row) if row else command, rest


def root() -> LazyGroup:
    """The whole command line."""
    completion_init()  # Typer's own shells, which the scripts of `completion` were written for
    top = _group("stream-interp", "Tells when the features that interpretability relies on drift.", EPILOG)
    for row in COMMANDS:
        first, _, last = row.name.partition(" ")
        if not last:
            _register(top, row)
            continue
        if first not in top.commands:
            top.add_command(_group(first, GROUPS[first]), first)
        _register(top.commands[first], row)
    return top


def _group(name: str, text: str, epilog: str | None = None) -> LazyGroup:
    group = LazyGroup(name=name, help=text, epilog=epilog, no_args_is_help=True, rich_markup_mode="rich")
    group.rows = {}
    return group


def _register(group: Any, row: Row) -> None:
    name = row.name.rpartition(" ")[2]
    group.rows[name] = row
    group.add_command(TyperCommand(name, help=row.help), name)


def _load(row: Row) -> Any:
    module, _, function = row.target.partition(":")
    command: Callable[..., Any] = getattr(importlib.import_module(module), function)
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    example = EXAMPLES.get(row.name)
    app.command(row.name.rpartition(" ")[2], epilog=f"Example: {escape(example)}" if example else None)(command)
    return typer.main.get_command(app)
