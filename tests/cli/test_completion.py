import shutil
import subprocess
from pathlib import Path

import pytest

from stream_interp.cli import main
from stream_interp.cli.proposals import model_ids, setting_names, sink_names

TOML = """\
[[sites]]
model_id = "credit-risk"
[[sites]]
model_id = "llm-*"
[[notify.sinks]]
name = "on-call"
type = "webhook"
"""


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "stream-interp.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        monkeypatch.setenv("_STREAM_INTERP_COMPLETE", "complete_bash")
        assert main([]) == 0
        streams = capsys.readouterr()
        assert streams.err == ""
        return streams.out.split()

    return run


def test_commands_groups_options_settings_and_models_are_completed(complete) -> None:
    assert {"backtest", "baseline"} <= set(complete("stream-interp ba"))
    assert {"init", "show"} <= set(complete("stream-interp config "))
    assert complete("stream-interp config show --boot") == ["--bootstrap"]
    assert complete("stream-interp detect --set drift.tol") == ["drift.tolerance="]
    assert complete("stream-interp status ") == ["credit-risk"]
    assert complete("stream-interp completion z") == ["zsh"]
    assert complete("stream-interp notify test on") == ["on-call"]


def test_a_broken_settings_file_proposes_nothing_and_says_nothing(complete, tmp_path: Path) -> None:
    assert sink_names() == ["on-call"]
    (tmp_path / "stream-interp.toml").write_text("[drift\n")
    assert complete("stream-interp status ") == []
    assert (sink_names(), model_ids()) == ([], [])


def test_lists_of_tables_are_settings_too() -> None:
    assert {"notify.sinks=", "sites=", "drift.tolerance="} <= set(setting_names())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_reads(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_STREAM_INTERP_COMPLETE=complete_{shell}" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    words = (
        'COMP_WORDS=(stream-interp conf); COMP_CWORD=1; _stream_interp_completion stream-interp; echo "${COMPREPLY[*]}"'
    )
    line = f'eval "$(stream-interp completion bash)"; {words}'
    bash = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=60, env=_path())
    assert bash.stdout.split() == ["config"]


def _path() -> dict[str, str]:
    import os
    import sys

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
