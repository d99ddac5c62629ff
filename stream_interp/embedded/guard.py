"""Runs a command and kills it when the process that asked for it is gone. Started by path: standard library only.

Usage: `guard.py COMMAND …` as leader of its own session, with a pipe as standard input. The other end of the pipe
closes when the asking process ends in whatever way, `kill -9` included; then the whole group is killed.
"""

import os
import signal
import subprocess
import sys
import threading


def _kill_group_when_orphaned() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Exit status of the command, 128 + signal number if a signal ended it."""
    # A handler, not SIG_IGN: the command would inherit an ignored signal, and must obey the group's SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_group_when_orphaned, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
