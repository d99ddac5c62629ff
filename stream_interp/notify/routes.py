"""Who hears of what: `[[notify.routes]]`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from stream_interp.errors import UsageError
from stream_interp.records.alert import Alert
from stream_interp.settings import NotifySettings, RouteSettings

RANK = {"info": 0, "warning": 1, "critical": 2}


def check_names(notify: NotifySettings) -> None:
    """Raises UsageError: two sinks of one name, or a route to a sink that does not exist."""
    names = [sink.name for sink in notify.sinks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"notify.sinks: {twice[0]!r} is the name of two sinks; give each its own")
    for number, route in enumerate(notify.routes, 1):
        if not route.sinks:
            raise UsageError(f"notify.routes, entry {number}: no sinks; expected some of {', '.join(names) or 'none'}")
        if unknown := [name for name in route.sinks if name not in names]:
            raise UsageError(
                f"notify.routes, entry {number}: no sink is named {unknown[0]!r}; expected {', '.join(names) or 'none'}"
            )


def sinks_of_alert(alert: Alert, routes: Sequence[RouteSettings], sinks: Collection[str]) -> frozenset[str]:
    """The sinks of all routes that match it; all sinks where there are no routes."""
    if not routes:
        return frozenset(sinks)
    return frozenset(name for route in routes if _matches(route, alert) for name in route.sinks)


def sinks_of_process(cause: str, routes: Sequence[RouteSettings], sinks: Collection[str]) -> frozenset[str]:
    """Of a silent process, which is critical and serves all sites: their globs are not asked."""
    if not routes:
        return frozenset(sinks)
    return frozenset(name for route in routes if fnmatchcase(cause, route.cause) for name in route.sinks)


def _matches(route: RouteSettings, alert: Alert) -> bool:
    lane = alert.lane
    pairs = (
        (lane.tenant, route.tenant),
        (lane.model_id, route.model_id),
        (lane.hook_name, route.hook_name),
        (alert.cause_hint, route.cause),
    )
    return RANK[alert.severity] >= RANK[route.severity] and all(fnmatchcase(name, glob) for name, glob in pairs)
