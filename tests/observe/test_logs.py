from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stream_interp.observe.logs import About, configure_logs, writes_json
from stream_interp.settings import LogSettings

EVIL = 'x\n2026-01-01T00:00:00.000Z critical forged: {"level": "error"}\r\x1b[31m\u2028\u202e'
log = logging.getLogger("stream_interp.detect.process")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def lines() -> list[str]:
    return []


def configure(lines: list[str], **settings: Any) -> list[str]:
    """Notices for people; log lines go to `lines`."""
    notices = list[str]()
    say = configure_logs(LogSettings(**settings), "detect", notices.append, lines.append)
    say(f"hello {EVIL}")
    return notices


def test_json_lines_say_when_what_where(lines: list[str]) -> None:
    assert configure(lines, format="json") == []
    log.warning("record %s/%s cannot be used", 3, 17, extra={"partition": 3, "offset": 17, "lane_id": "ab", "x": 1})
    notice, warning = (json.loads(line) for line in lines)
    assert notice["message"].startswith("hello x ")
    assert warning.pop("time").endswith("Z")
    assert warning == {
        "level": "warning", "logger": "stream_interp.detect.process", "process": "detect",
        "message": "record 3/17 cannot be used", "partition": 3, "offset": 17, "lane_id": "ab",
    }  # fmt: skip
    assert writes_json()


def test_what_is_said_names_what_it_is_about(lines: list[str]) -> None:
    said = About("lane ab: 100% read", lane_id="ab", partition=3, offset=17)
    configure_logs(LogSettings(format="json"), "detect", list[str]().append, lines.append)(said)
    found = json.loads(lines[0])
    assert (found["message"], found["lane_id"], found["partition"], found["offset"]) == (str(said), "ab", 3, 17)
    notices = list[str]()
    configure_logs(LogSettings(), "detect", notices.append, lines.append)(said)
    assert notices == ["lane ab: 100% read"]


def test_text_lines_are_for_people(lines: list[str]) -> None:
    [notice] = configure(lines)
    assert notice.startswith("hello x ")
    log.warning("lost", extra={"partition": 3})
    log.debug("not shown")
    [line] = lines
    assert line.partition("Z ")[2] == "warning stream_interp.detect.process: lost partition=3\n"
    assert not writes_json()


@pytest.mark.parametrize("form", ["text", "json"])
def test_untrusted_text_cannot_forge_a_line_or_act_on_a_terminal(lines: list[str], form: str) -> None:
    configure(lines, format=form)
    lines.clear()
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.warning("%s", EVIL, exc_info=True, extra={"lane_id": EVIL})
    text = "".join(lines)
    assert text.isprintable() or set(text) - set("\n") == {c for c in text if c.isprintable()}
    first, *rest = text.splitlines()
    if form == "json":
        assert rest == []
        assert "ValueError" in json.loads(first)["error"]
    else:
        assert all(line.startswith("  | ") for line in rest)
        assert "Traceback" in rest[0]


def test_ten_kilobytes_are_cut(lines: list[str]) -> None:
    configure(lines, format="json")
    log.warning("%s", "y" * 10_000, extra={"lane_id": "z" * 10_000})
    assert len(lines[-1]) < 5_000
    assert json.loads(lines[-1])["message"].endswith("…")


def test_the_level_and_noisy_libraries(lines: list[str]) -> None:
    configure(lines, format="json", level="warning")
    log.info("no")
    logging.getLogger("aiokafka.consumer").info("no")
    logging.getLogger("aiokafka.consumer").warning("yes")
    assert [json.loads(line)["message"] for line in lines] == ["yes"]


def test_who_logs_goes_on_when_nobody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    configure_logs(LogSettings(), "detect", print, broken)
    log.warning("lost")
