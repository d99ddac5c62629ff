import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import typer

from stream_interp.cli import app, main
from stream_interp.cli.output import emit_json, emit_table, notice
from stream_interp.errors import BlindError, DependencyUnreachable, IntegrityError, StreamInterpError, UsageError

UNREACHABLE = "127.0.0.1:1"
ERRORS: dict[str, BaseException] = {
    "plain": StreamInterpError("[bold]no[/] markup\nsecond line"),
    "usage": UsageError("u"),
    "blind": BlindError("b"),
    "unreachable": DependencyUnreachable("Kafka", "h:1", "gone", "Start it."),
    "integrity": IntegrityError("i"),
    "drift": typer.Exit(3),
    "interrupt": KeyboardInterrupt(),
    "fault": ZeroDivisionError("by zero"),
    "pipe": BrokenPipeError(),
    "disk": OSError(28, "No space left on device", "a.json"),
}


def probe(kind: str) -> None:
    if kind in ERRORS:
        raise ERRORS[kind]
    notice("noise")
    emit_json({"kind": kind})


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules.setdefault("stream_interp_cli_probe", type(sys)("stream_interp_cli_probe"))
    module.probe = probe  # type: ignore[attr-defined]
    rows = (
        app.Row("probe", "stream_interp_cli_probe:probe", "Probe."),
        app.Row("broken", "stream_interp.cli.not_written:nothing", "Broken."),
    )
    monkeypatch.setattr(app, "COMMANDS", (*app.COMMANDS, *rows))
    monkeypatch.delenv("STREAM_INTERP_DEBUG", raising=False)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("fine", 0),
        ("plain", 1),
        ("usage", 2),
        ("drift", 3),
        ("blind", 4),
        ("unreachable", 5),
        ("integrity", 6),
        ("fault", 1),
        ("disk", 1),
        ("interrupt", 130),
    ],
)
def test_exit_codes(kind: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", kind]) == code
    streams = capsys.readouterr()
    assert "Traceback" not in streams.err
    assert streams.out == ('{"kind":"fine"}\n' if kind == "fine" else "")


def test_an_error_is_one_line_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    main(["probe", "plain"])
    assert capsys.readouterr().err == "error: [bold]no[/] markup second line\n"
    main(["probe", "unreachable"])
    assert capsys.readouterr().err == "error: Kafka at h:1: gone. Start it.\n"
    main(["probe", "disk"])
    assert capsys.readouterr().err == "error: a.json: No space left on device\n"


def test_a_fault_names_its_type_and_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    main(["probe", "fault"])
    assert capsys.readouterr().err.startswith("error: ZeroDivisionError: by zero.")
    assert main(["probe", "fault", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["prbe"], ["probe"], ["probe", "x", "--nope"], ["topics", "plam"], []])
def test_wrong_words_exit_2(words: list[str]) -> None:
    assert main(words) == 2


def test_a_command_that_cannot_be_imported_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broken"]) == 1
    assert "not_written" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert main(["probe", "fine"]) == 0


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = {row.target.partition(":")[0] for row in app.COMMANDS} & set(sys.modules)
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(row.name.partition(" ")[0] in shown for row in app.COMMANDS)
    assert {row.target.partition(":")[0] for row in app.COMMANDS} & set(sys.modules) == loaded


@pytest.mark.parametrize("row", app.COMMANDS, ids=lambda row: row.name)
def test_every_row_of_the_table_has_its_command(row: app.Row, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, function = row.target.partition(":")
    assert callable(getattr(import_module(module), function))
    assert main([*row.name.split(), "--help"]) == 0


def test_tables_show_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table("", ["name", "value"], [["[red]x[/red]", None], ["y" * 200, 1]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["[red]x[/red]", "-"]
    assert lines[2].split() == ["y" * 200, "1"]


def _run(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_interp.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, **environ},
        check=False,
    )


def test_version_is_fast_and_leaves_torch_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from stream_interp.cli import main; rc = main(['version', '--json']); "
        "sys.exit(rc or 'torch' in sys.modules)"
    )
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started_s < 5
    assert {"stream-interp", "torch", "librdkafka", "python"} <= set(json.loads(done.stdout)["versions"])


def test_config_show_json_is_json_only(tmp_path: Path) -> None:
    (tmp_path / "stream-interp.toml").write_text("[drift]\ntolerance = 1.5\n")
    done = _run("config", "show", "--json", "--bootstrap", "h:1", cwd=tmp_path, STREAM_INTERP_WINDOW__REQUESTS="4")
    assert done.returncode == 0
    assert done.stderr == ""
    settings = json.loads(done.stdout)["settings"]
    assert settings["drift.tolerance"] == {"value": 1.5, "origin": "stream-interp.toml:2"}
    assert settings["window.requests"] == {"value": 4, "origin": "STREAM_INTERP_WINDOW__REQUESTS"}
    assert settings["kafka.bootstrap"] == {"value": "h:1", "origin": "flag"}
    assert settings["drift.clock"] == {"value": "closed_at", "origin": "default"}


def test_a_reader_that_leaves_early_is_no_error_message(tmp_path: Path) -> None:
    command = f"{sys.executable} -m stream_interp.cli config show | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_fault(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m stream_interp.cli version --json {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [["dev", "--kafka-port", "70000"], ["dev", "--redis-port", "0"], ["demo", "--files", __file__]]
)
def test_a_wrong_port_or_folder_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "fault of stream-interp" not in capsys.readouterr().err


def test_no_colour_where_it_is_not_wanted(tmp_path: Path) -> None:
    done = _run("nothing", cwd=tmp_path, NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color")
    assert done.returncode == 2
    assert "\x1b[3" not in done.stderr


def test_what_is_logged_on_the_way_is_one_inert_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a process of its own: pytest hears logs before anybody else."""
    script = (
        "import logging\n"
        "from stream_interp import cli\n"
        "from stream_interp.cli import main\n"
        "def run(words):\n"
        "    try:\n"
        "        raise ValueError('\\x1b[31mred\\nsecond' + 'y' * 10_240)\n"
        "    except ValueError:\n"
        "        logging.getLogger('stream_interp.detect').warning('record 4/2 cannot be used', exc_info=True)\n"
        "    return 0\n"
        "cli._run = run\n"
        "raise SystemExit(main(['replay', *__import__('sys').argv[1:]]))\n"
    )

    def said(*words: str) -> str:
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0
        return done.stderr

    [line] = said().splitlines()
    assert line.startswith("warning: record 4/2 cannot be used: \ufffd[31mred secondyyy")
    assert len(line) < 1_100
    assert "Traceback" in said("--debug")
