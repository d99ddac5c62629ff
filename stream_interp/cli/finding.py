"""Which incident or lane a word means: ids are long, so the beginning of one is enough. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stream_interp.errors import UsageError
from stream_interp.records.alert import AlertState
from stream_interp.records.lane import Lane
from stream_interp.records.text import inert

CANDIDATES = 8
NAME_CHARS = 60
LATEST = "latest"


def find_incident(word: str, states: Mapping[str, AlertState], what: str = "incident") -> AlertState:
    """The incident that `word` is, or begins; `latest` is the newest one of drift. Raises UsageError."""
    if word == LATEST and states:
        drifts = [state for state in states.values() if state.groups]
        return max(drifts or states.values(), key=lambda state: state.at_ms)
    return states[by_prefix(word, incident_names(states), what)]


def find_lane(word: str, lanes: Iterable[Lane], what: str = "lane") -> Lane:
    """The lane whose id `word` is, or begins, or the only one of that model. Raises UsageError."""
    known = {lane.lane_id: lane for lane in lanes}
    of_model = [lane for lane in known.values() if lane.model_id == word]
    return of_model[0] if len(of_model) == 1 else known[by_prefix(word, lane_names(known.values()), what)]


def by_prefix(word: str, candidates: Mapping[str, str], what: str) -> str:
    """The one id that `word` is, or begins.

    Args:
        word: as it was typed.
        candidates: id → how it is shown in the error.
        what: what is looked for, such as `incident`.

    Raises:
        UsageError: none or several; it lists candidates.
    """
    if word in candidates:
        return word
    if not candidates:
        raise UsageError(f"no {what} is known, so that {inert(word)[:NAME_CHARS]!r} names none")
    fitting = [name for name in candidates if word and name.startswith(word)]
    if len(fitting) == 1:
        return fitting[0]
    problem = f"fits {len(fitting)} of them" if fitting else "fits none"
    shown = [f"{name} ({candidates[name]})" for name in (fitting or candidates)][:CANDIDATES]
    listed = ", ".join(shown) + (", …" if len(fitting or candidates) > CANDIDATES else "")
    raise UsageError(
        f"{what} {inert(word)[:NAME_CHARS]!r} {problem}; expected an id or the beginning of one. Known: {listed}"
    )


def lane_names(lanes: Iterable[Lane]) -> dict[str, str]:
    """lane id → its names."""
    return {lane.lane_id: lane_name(lane) for lane in lanes}


def incident_names(states: Mapping[str, AlertState]) -> dict[str, str]:
    """incident id → its last transition and lane, newest first."""
    newest = sorted(states.values(), key=lambda state: -state.at_ms)
    return {state.incident_id: f"{state.transition}, {lane_name(state.lane)}" for state in newest}


def lane_name(lane: Lane) -> str:
    """The names of a lane, each cut to a length that a line bears; inert."""
    names = (lane.tenant, lane.model_id, lane.model_revision, lane.hook_name)
    tenant, model_id, revision, hook = (cut(name) for name in names)
    return f"{tenant}/{model_id}@{revision} {hook}"


def cut(text: str, limit: int = NAME_CHARS) -> str:
    """Untrusted text in at most so many characters, inert."""
    return inert(text, limit)
