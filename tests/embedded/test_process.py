import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream_interp.embedded.process import GuardedProcess
from stream_interp.errors import DependencyUnreachable

SLEEPER = ("sleep", "60")


def group_is_gone(pgid: int, within_s: float = 5.0) -> bool:
    """Dead members that nobody has reaped yet do not count."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
        if not any(int(line.split()[0]) == pgid and "Z" not in line.split()[1] for line in listed.splitlines()):
            return True
        time.sleep(0.05)
    return False


def guarded(tmp_path: Path, *command: str) -> GuardedProcess:
    return GuardedProcess("Server", command, cwd=tmp_path, log_path=tmp_path / "log")


def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    process = guarded(tmp_path, "sh", "-c", "echo up; sleep 60")
    process.wait_until(lambda: "up" in (tmp_path / "log").read_text(), address="here", timeout_s=5)
    assert process.exit_code() is None
    process.stop(grace_s=5)
    assert process.exit_code() == 128 + signal.SIGTERM
    assert group_is_gone(process.pid)
    process.stop(grace_s=5)


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = guarded(tmp_path, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    process.wait_until(lambda: "up" in (tmp_path / "log").read_text(), address="here", timeout_s=5)
    process.stop(grace_s=0.3)
    assert process.exit_code() == -signal.SIGKILL
    assert group_is_gone(process.pid)


def test_it_is_not_in_our_group_and_so_not_reached_by_the_terminal(tmp_path: Path) -> None:
    process = guarded(tmp_path, *SLEEPER)
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.kill()


def test_it_dies_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from stream_interp.embedded.process import GuardedProcess;"
            f"p = GuardedProcess('Server', {SLEEPER!r}, cwd=Path('.'), log_path=Path('log'));"
            "print(p.pid, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert owner.stdout is not None
    pgid = int(owner.stdout.readline())
    os.killpg(pgid, 0)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert group_is_gone(pgid)


def test_a_server_that_ends_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    process = guarded(tmp_path, "sh", "-c", "echo cannot bind; exit 3")
    with pytest.raises(DependencyUnreachable, match=r"(?s)127\.0\.0\.1:1.*ended with code 3.*cannot bind"):
        process.wait_until(lambda: False, address="127.0.0.1:1", timeout_s=10)
    process.stop(grace_s=1)


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    process = guarded(tmp_path, *SLEEPER)
    with pytest.raises(DependencyUnreachable, match="not ready after 0 s"):
        process.wait_until(lambda: False, address="127.0.0.1:1", timeout_s=0.1)
    process.kill()
    assert group_is_gone(process.pid)
