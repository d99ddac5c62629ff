"""Views to HTML. Everything a template prints is made inert and cut, then escaped, unless it is HTML of our own."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stream_interp.records.window import SCORE_TITLES
from stream_interp.ui import text
from stream_interp.ui.text import Cut
from stream_interp.ui.web import charts

STATIC = {"ui.css": "text/css; charset=utf-8", "ui.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}

_PAGE = re.compile(r"[A-Za-z0-9_-]{1,64}\.(md|html)")
_NAME = 64  # characters of a model's or hook's name in a table
_SEPARATORS = frozenset("._/-")
_PARTS = re.compile(r"([._/-])")


def render(template: str, **values: object) -> str:
    """The page as HTML."""
    return _environment().get_template(template).render(values)


@cache
def static(name: str) -> bytes:
    """The bytes of one of STATIC."""
    return files("stream_interp.ui.web").joinpath("static", name).read_bytes()


@cache
def _version(name: str) -> str:
    return hashlib.sha256(static(name)).hexdigest()[:12]


def static_url(name: str) -> str:
    """Changes with the content, so that browsers may keep it for ever."""
    return f"/static/{name}?v={_version(name)}"


def breakable(name: str) -> Markup:
    """A name as HTML that may break after its separators, so that narrow columns do not break it anywhere."""
    parts = _PARTS.split(text.cut(name, _NAME))
    return Markup("").join(part + Markup("<wbr>") if part in _SEPARATORS else part for part in parts)


def runbook_of(folder: str, named: str, cause: str) -> str:
    """Where the runbook of an incident is: the page it names in the operator's folder, or that of its cause."""
    page = next((page for page in (named, f"{cause}.md") if _PAGE.fullmatch(page)), "")
    return f"{folder.rstrip('/')}/{page}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("stream_interp.ui.web", "templates"), autoescape=True, undefined=StrictUndefined,
        finalize=_inert, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    made.filters.update(
        age=text.age, instant=text.instant, number=text.number, percent=text.percent, cut=text.cut, breakable=breakable
    )
    made.globals.update(
        static_url=static_url, runbook_of=runbook_of,
        evidence_chart=charts.evidence_chart, health_chart=charts.health_chart,
        whiskers=charts.whiskers, axis_top=charts.axis_top, held=text.held, whisker_width=charts.WHISKER_WIDTH,
        score_titles=SCORE_TITLES,
    )  # fmt: skip
    return made


def _inert(value: object) -> object:
    return text.cut(value) if isinstance(value, str) and not isinstance(value, Cut | Markup) else value
