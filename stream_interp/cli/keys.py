"""Single keys from a terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LONGEST = 8  # bytes of one key, escape sequences included


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key: its characters, empty where none came.

    Where stdin is no terminal, or the system has no termios, no key ever comes. The terminal is restored at the end.
    """
    try:
        import termios
        import tty
    except ImportError:
        yield _nothing
        return
    if not sys.stdin.isatty():
        yield _nothing
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield lambda timeout_s: _key(fd, timeout_s)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _key(fd: int, timeout_s: float) -> str:
    ready, _, _ = select.select([fd], [], [], timeout_s)
    return os.read(fd, _LONGEST).decode(errors="replace") if ready else ""


def _nothing(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""
