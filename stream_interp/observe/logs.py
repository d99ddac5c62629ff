"""What a process writes to stderr: plain lines for people, or one JSON object a line for machines.

A call such as `log.warning("…", extra={"lane_id": …, "partition": …, "offset": …})` names what it is about; the keys
are those of `CONTEXT`; what a process says to the person who started it names them by `About`. Whatever a message
holds, it stays one line: untrusted names cannot forge another one.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from stream_interp.records.text import inert
from stream_interp.settings import LogSettings

CONTEXT = ("lane_id", "topic", "partition", "offset", "incident_id", "event_id", "sink")

MAX_CHARS = 4_000  # of one message
_MAX_TRACE_CHARS = 20_000
_NOISY = {"aiokafka": logging.WARNING, "faust": logging.WARNING, "mode": logging.WARNING, "uvicorn": logging.WARNING}
_notices = logging.getLogger("stream_interp.notice")


class About(str):
    """What a process says, and in JSON the fields of what it is about: keys of CONTEXT."""

    about: dict[str, object]

    def __new__(cls, text: str, **about: object) -> Self:
        """`About("lane ab: …", lane_id="ab")`."""
        made = super().__new__(cls, text)
        made.about = about
        return made


def configure_logs(
    settings: LogSettings, process: str, notice: Callable[[str], None], write: Callable[[str], object] | None = None
) -> Callable[[str], None]:
    """Sets up the logging of this operating-system process, once, at its start.

    Args:
        settings: format and level.
        process: its command, in every JSON line.
        notice: shows a line to a person.
        write: takes the finished lines, with their line ends; default: stderr.

    Returns:
        How the process says something to the person who started it: `notice`, or in JSON a log line of level info.
    """
    handler = _Lines(write or (lambda line: sys.stderr.write(line)))
    handler.setFormatter(_Json(process) if settings.format == "json" else _Text())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(max(level, root.level))
    if settings.format == "json":
        return lambda text: _notices.info("%s", text, extra=text.about if isinstance(text, About) else None)
    return lambda text: notice(inert(text, MAX_CHARS))


def writes_json() -> bool:
    """`configure_logs` was called with `log.format = json`."""
    return any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers)


class _Lines(logging.Handler):
    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
        except Exception:  # whoever logs must go on
            self.handleError(record)


class _Json(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": inert(record.getMessage(), MAX_CHARS),
            **_context(record),
        }
        if record.exc_info:
            fields["error"] = "\n".join(_trace(record))
        return json.dumps(fields)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = "".join(f" {name}={value}" for name, value in _context(record).items())
        message = inert(record.getMessage(), MAX_CHARS)
        line = f"{_time(record)} {record.levelname.lower()} {record.name}: {message}{context}"
        return "\n".join([line, *(f"  | {part}" for part in _trace(record))])


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _context(record: logging.LogRecord) -> dict[str, object]:
    found = {name: getattr(record, name, None) for name in CONTEXT}
    return {n: inert(v, 128) if isinstance(v, str) else v for n, v in found.items() if v is not None}


def _trace(record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    whole = "".join(traceback.format_exception(*record.exc_info))
    return [inert(line, MAX_CHARS) for line in whole[-_MAX_TRACE_CHARS:].splitlines()]
