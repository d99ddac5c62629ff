"""Secrets come from files, never from flags: a flag shows in the process list and in the shell's history."""

from __future__ import annotations

from pathlib import Path

from stream_interp.errors import UsageError


def read_secret(path: str, setting: str) -> str:
    """The content of a secret file, without the newline that editors add.

    Args:
        path: the file.
        setting: who names it, for the error message.

    Raises:
        UsageError: missing, unreadable, empty or not UTF-8.
    """
    try:
        secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(
            f"{setting}: cannot read the secret file {path!r}: {found}; expected a readable file"
        ) from None
    if not secret:
        raise UsageError(f"{setting}: the secret file {path!r} is empty; write the secret into it")
    return secret
