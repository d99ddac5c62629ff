"""The command line: `main` is the only place where an error becomes a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from stream_interp.errors import StreamInterpError

INTERRUPTED = 130
_MAX_CHARS = 1_000  # of one logged line


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 ok, 1 error, 2 usage, 3 drift, 4 blind, 5 unreachable, 6 integrity.

    Args:
        args: the words after the program's name; default: those of the process.
    """
    _open_missing_streams()
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words or os.environ.get("STREAM_INTERP_DEBUG", "0") not in {"", "0"}
    if not debug:
        logging.lastResort = _Lines(logging.WARNING)
    try:
        return _run([word for word in words if word != "--debug"])
    except BrokenPipeError:
        # Python flushes stdout once more at exit: let it succeed, the reader is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _tell(error)


class _Lines(logging.Handler):
    """What is logged while a command runs that sets up no logs of its own: a line each, inert, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        from stream_interp.cli.output import warn
        from stream_interp.records.text import inert

        try:
            error = record.exc_info[1] if record.exc_info else None
            warn(inert(record.getMessage() + (f": {error}" if error else ""), _MAX_CHARS))
        except Exception:  # whoever logs must go on
            self.handleError(record)


def _open_missing_streams() -> None:
    """Where a parent closed stdout or stderr, what is written there is lost; else a socket would get its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _run(words: list[str]) -> int:
    from stream_interp.cli.app import root

    try:
        root().main(args=words, prog_name="stream-interp")
    except SystemExit as done:
        sys.stdout.flush()
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def _tell(error: Exception) -> int:
    from stream_interp.cli.output import fail
    from stream_interp.observe.logs import writes_json

    tell = logging.getLogger("stream_interp").error if writes_json() else fail
    if isinstance(error, StreamInterpError):
        tell(" ".join(str(error).split()))
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:
        tell(": ".join(str(part) for part in (error.filename, error.strerror) if part is not None))
        return StreamInterpError.exit_code
    reason = " ".join(str(error).split()) or "no message"
    tell(f"{type(error).__name__}: {reason}. This is a fault of stream-interp; run again with --debug for the details")
    return StreamInterpError.exit_code
