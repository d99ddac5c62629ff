"""The folder that a server keeps its data in: the user's, which stays, or a temporary one, which goes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from stream_interp.errors import UsageError


class DataDir:
    """The folder `given` by the user, or a temporary one; it exists from `open` on."""

    def __init__(self, given: Path | None) -> None:
        self.is_temporary = given is None
        self.path = given.absolute() if given else Path()

    def open(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            if self.is_temporary:
                self.path = Path(tempfile.mkdtemp(prefix="stream-interp-"))
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"data folder {self.path}: expected a folder to write to, found: {error}") from error

    def close(self) -> None:
        """Remove it if it is temporary."""
        if self.is_temporary and self.path != Path():
            shutil.rmtree(self.path, ignore_errors=True)
