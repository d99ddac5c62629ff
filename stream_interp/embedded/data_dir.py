"""The folder that a server keeps its data in: the user's, which stays, or a temporary one, which goes."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO

from stream_interp.errors import UsageError


class DataDir:
    """One server's folder and its lock; both exist from `open` to `close`.

    Args:
        given: the user's folder, which several servers share; None for a temporary one.
        server: name of this server's part in it.
    """

    def __init__(self, given: Path | None, server: str) -> None:
        self.is_temporary = given is None
        self._root = given.absolute() if given else None
        self._server = server
        self._lock: IO[bytes] | None = None

    @property
    def path(self) -> Path:
        """The server's part; not made by `open`.

        Raises:
            RuntimeError: before `open` of a temporary folder.
        """
        if self._root is None:
            raise RuntimeError(f"the temporary folder of {self._server} is not open")
        return self._root / self._server

    def open(self) -> None:
        """Make the folder and lock the server's part of it; nothing happens if it is open.

        Raises:
            UsageError: it cannot be made, or another process uses it.
        """
        if self._lock:
            return
        try:
            if self.is_temporary:
                self._root = Path(tempfile.mkdtemp(prefix="stream-interp-"))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("wb")
        except OSError as error:
            raise UsageError(f"data folder {self._root}: expected a folder to write to, found: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise UsageError(f"data folder {self._root}: found it in use by another process. Stop that one.") from error
        self._lock = lock

    def close(self) -> None:
        """Unlock the folder, remove it if it is temporary."""
        if self._lock is None:
            return
        self._lock.close()
        self._lock = None
        if self.is_temporary:
            shutil.rmtree(self.path.parent, ignore_errors=True)
