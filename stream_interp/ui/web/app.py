"""The routes: each page and, under /api, the same view as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from stream_interp.status.redis_view import STALE_INTERVALS
from stream_interp.ui.feed import FeedState
from stream_interp.ui.model.model import Model
from stream_interp.ui.text import Cut
from stream_interp.ui.views.account import baselines, cuts_account
from stream_interp.ui.views.fleet import fleet, incident_list
from stream_interp.ui.views.incident import IncidentView, incident_view
from stream_interp.ui.views.lane import lane_view
from stream_interp.ui.views.lanes import Now
from stream_interp.ui.views.processes import processes
from stream_interp.ui.web.guard import Guard
from stream_interp.ui.web.pages import STATIC, render, static

MAX_QUERY = 100  # characters of a search
_FOR_EVER = "public, max-age=31536000, immutable"
View = TypeVar("View")


class Source(Protocol):
    """Where views come from; `ui.feed.Feed` is one."""

    @property
    def state(self) -> FeedState:
        """How far to trust it now."""

    def ask(self, view: Callable[[Model], View]) -> View:
        """The answer of a pure view of the model."""


@dataclass(frozen=True)
class Site:
    """What the routes stand on.

    Args:
        feed: keeps the model.
        stale_after_ms: a status older than this is `unknown`.
        runbook_url: where runbooks are, for links.
        now_ms: the clock, Unix epoch.
        improve: makes an incident's view better than the model alone can, off the loop; may take a while.
    """

    feed: Source
    stale_after_ms: int
    runbook_url: str = ""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    improve: Callable[[IncidentView], IncidentView] = lambda view: view

    def ask(self, view: Callable[[Model, Now], View]) -> View:
        """A view as of now."""
        now = Now(self.now_ms(), self.stale_after_ms)
        return self.feed.ask(lambda model: view(model, now))


def stale_after_ms(status_interval_s: float) -> int:
    """As Redis has it: a status lives three intervals."""
    return round(status_interval_s * STALE_INTERVALS * 1000)


def make_app(site: Site, server_names: Sequence[str] = (), more: Sequence[BaseRoute] = ()) -> Guard:
    """The ASGI app. `more`: further routes, such as those of health and metrics."""
    routes = [*_pages(site), Route("/static/{name}", _static), *more]
    handlers = {404: _missing(site), 500: _broken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), server_names)


def _pages(site: Site) -> list[Route]:
    views: dict[str, tuple[str, Callable[[Request], object]]] = {
        "/": ("fleet.html", lambda r: site.ask(lambda m, now: fleet(m, now, _page(r), _query(r)))),
        "/incidents": ("incidents.html", lambda r: site.ask(lambda m, now: incident_list(
            m, now, _word(r, "lane"), _word(r, "open") == "1", _page(r)))),
        "/lanes/{lane_id}": ("lane.html", lambda r: site.ask(
            lambda m, now: lane_view(m, r.path_params["lane_id"], now, _page(r)))),
        "/incidents/{incident_id:path}": ("incident.html", lambda r: _incident(site, r)),
        "/baselines": ("baselines.html", lambda r: site.ask(
            lambda m, now: baselines(m, now, _word(r, "lane"), _page(r)))),
        "/cuts": ("cuts.html", lambda r: site.ask(lambda m, now: cuts_account(m, now, _page(r)))),
        "/processes": ("processes.html", lambda r: site.ask(processes)),
    }  # fmt: skip
    routes = []
    for path, (template, view) in views.items():
        routes.append(Route(path, _html(site, template, view)))
        routes.append(Route(_api(path), _json(view)))
    return routes


def _html(site: Site, template: str, view: Callable[[Request], object]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        shown = _found(view(request))
        page = render(
            template, view=shown, feed=site.feed.state, runbook_url=site.runbook_url, path=request.url.path,
            json_url=_json_url(request),
        )  # fmt: skip
        return HTMLResponse(page)

    return endpoint


def _json(view: Callable[[Request], object]) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        return Response(msgspec.json.encode(_found(view(request))), media_type="application/json")

    return endpoint


def _incident(site: Site, request: Request) -> IncidentView | None:
    view = site.ask(lambda model, now: incident_view(model, request.path_params["incident_id"], now))
    return view if view is None else site.improve(view)


def _found(view: object) -> object:
    if view is None:
        raise HTTPException(404)
    return view


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    return Response(static(name), headers={"content-type": STATIC[name], "cache-control": _FOR_EVER})


def _missing(site: Site) -> Callable[[Request, Exception], Response]:
    def endpoint(request: Request, _error: Exception) -> Response:
        if request.url.path.startswith("/api/"):
            return Response(b'{"schema_version":1,"error":"not found"}', 404, media_type="application/json")
        return HTMLResponse(render("missing.html", path=request.url.path, feed=site.feed.state), 404)

    return endpoint


def _broken(_request: Request, _error: Exception) -> Response:
    return HTMLResponse("<!doctype html><title>error</title><p>This page failed; see the log of stream-interp ui.", 500)


def _api(path: str) -> str:
    return "/api/fleet" if path == "/" else f"/api{path}"


def _json_url(request: Request) -> Cut:
    """The same view as JSON: of the same page, lane and search."""
    asked = {name: word for name in ("lane", "open", "q", "page") if (word := _word(request, name))}
    return Cut(quote(_api(request.url.path)) + (f"?{urlencode(asked)}" if asked else ""))


def _page(request: Request) -> int:
    word = _word(request, "page")
    return int(word) if word.isdecimal() and len(word) < 8 else 1


def _query(request: Request) -> str:
    return _word(request, "q")


def _word(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:MAX_QUERY].strip()
