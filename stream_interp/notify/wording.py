"""What notifications say: title, text and links. Pure. Names are untrusted: made inert and cut here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stream_interp.notify.notification import Kind, Notification
from stream_interp.notify.sinks.text import is_web, moment, one_line
from stream_interp.notify.story import Story
from stream_interp.records.alert import FIRING, Alert, FeatureDrift, ScoreDrift
from stream_interp.records.lane import Lane, digest

NAME_CHARACTERS = 80
TITLE_CHARACTERS = 300
REASON_CHARACTERS = 500
LISTED = 5  # features and scores in a text; the alert beside it has more
LISTED_STORIES = 20  # in a digest
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
SILENT = "detector silent: "  # before the process's id

_WHAT = {
    "opened": "drift",
    "updated": "drift goes on",
    "escalated": "drift escalated",
    "resolved": "drift resolved",
    "blind": "blind: no windows arrive",
    "seeing": "windows arrive again",
    "integrity_error": "integrity error",
    "integrity_restored": "integrity restored",
    "noted": "noted",
    "note_ended": "no longer so",
}
_WHAT_OF_WINDOWS = {"blind": "blind: requests are not judged", "seeing": "requests are judged again"}  # they do come
_MEANS = {
    "blind": "Nothing of this lane is judged until windows arrive again.",
    "integrity_error": "What this lane's status says is not to be trusted until this has ended.",
}


class Wording(NamedTuple):
    """Builds notifications.

    Attributes:
        ui_url: where `stream-interp ui` is reached; empty: no such link.
        runbook_url: folder of the runbooks; empty: no such link.
    """

    ui_url: str
    runbook_url: str

    def of_story(
        self, story: Story, kind: Kind, event_ids: Sequence[str], told_ms: int, now_ms: int, openings: int = 0
    ) -> Notification:
        """The story as it stands.

        Args:
            event_ids: what it covers, oldest first; empty for a repeat, whose id follows from the last notification.
            told_ms: when the sink was last told of the story.
            openings: of a flapping story.
        """
        alert = story.alert
        return Notification(
            id=event_ids[-1] if event_ids else digest(alert.event_id, "repeat", told_ms)[:32],
            kind=kind,
            story=story.id,
            phase=story.phase(now_ms),
            severity=alert.severity,
            title=_title(story, kind),
            text="\n".join([*_lines(story, kind, now_ms, openings), *self._first(alert), _lane_line(alert.lane)]),
            at_ms=_at_ms(story, kind, now_ms),
            started_at_ms=story.started_at_ms,
            event_ids=list(event_ids),
            links=self._links(story.id, _page(alert)),
            alert=alert,
        )

    def of_digest(self, stories: Sequence[Story], event_ids: Sequence[str], now_ms: int) -> Notification:
        """Stories that began and ended while nobody was told."""
        shown = [f"{_where(s.alert.lane)}: {_span(s)}" for s in stories[:LISTED_STORIES]]
        rest = len(stories) - len(shown)
        more = [f"and {rest} more"] if rest else []
        id_ = digest("digest", *sorted(event_ids))[:32]
        return Notification(
            id=id_, kind="digest", story=id_, phase="resolved", severity="info",
            title=f"digest: {len(stories)} incidents opened and resolved while nobody was told",
            text="\n".join([*shown, *more]), at_ms=now_ms, started_at_ms=min(s.started_at_ms for s in stories),
            event_ids=list(event_ids), links={"ui": self.ui_url.rstrip("/")} if self.ui_url else {},
        )  # fmt: skip

    def of_silence(
        self, story: str, process: str, lane: Lane | None, last_ms: int, now_ms: int, *, alone: bool
    ) -> Notification:
        """A process that died. `alone`: none of its kind is left. `lane`: the one whose status was the last to come."""
        name, left = (
            one_line(process, NAME_CHARACTERS),
            "none of its kind lives" if alone else "others of its kind live",
        )
        of = ""
        if lane is not None:
            of, left = f" of lane {lane.lane_id}", "no lane's status has come since"
        return Notification(
            id=story, kind="silent", story=story, phase="firing", severity="critical" if alone else "warning",
            title=SILENT + name,
            text="\n".join([
                f"Last sign of life{of}: {moment(last_ms)}; {left}. Until it is back, what it watches is not seen.",
                "look first: stream-interp doctor", *self._unlinked("detector_silent.md"),
            ]),
            at_ms=now_ms, started_at_ms=last_ms, event_ids=[story], links=self._runbook("detector_silent.md"),
        )  # fmt: skip

    def of_return(self, story: str, process: str, now_ms: int) -> Notification:
        """It is back, or another has taken over what it did."""
        id_ = return_id(story)
        return Notification(
            id=id_, kind="silent", story=story, phase="resolved", severity="info",
            title=f"detector back: {one_line(process, NAME_CHARACTERS)}", text="It lives, or another does its work.",
            at_ms=now_ms, started_at_ms=now_ms, event_ids=[id_], links=self._runbook("detector_silent.md"),
        )  # fmt: skip

    def of_test(self, sink: str, now_ms: int) -> Notification:
        """A marked test alert."""
        id_ = digest("test", sink, now_ms)[:32]
        return Notification(
            id=id_, kind="test", story=id_, phase="firing", severity="info", title="TEST: stream-interp notify test",
            text=f"This is a test of the sink {one_line(sink, NAME_CHARACTERS)}. Nothing has happened.", at_ms=now_ms,
            started_at_ms=now_ms, event_ids=[id_], links=self._links(id_, ""),
        )  # fmt: skip

    def _first(self, alert: Alert) -> list[str]:
        """What to do first. Only of an id that means nothing to a shell: people copy the line."""
        page = self._unlinked(_page(alert)) if alert.transition in FIRING else []
        named = _ID.fullmatch(alert.incident_id) is not None
        return [*([f"look first: stream-interp alerts show {alert.incident_id}"] if named else []), *page]

    def _unlinked(self, page: str) -> list[str]:
        """The runbook in words, where it has no address that a link could go to."""
        return [f"runbook: {path}" for path in self._runbook(page).values() if not is_web(path)]

    def _links(self, story: str, page: str) -> dict[str, str]:
        ui = {"ui": f"{self.ui_url.rstrip('/')}/incidents/{story}"} if self.ui_url else {}
        return ui | self._runbook(page)

    def _runbook(self, page: str) -> dict[str, str]:
        is_page = re.fullmatch(r"[a-z0-9_]+\.md", page)  # whoever can write alerts makes no addresses
        return {"runbook": f"{self.runbook_url.rstrip('/')}/{page}"} if self.runbook_url and is_page else {}


def return_id(story: str) -> str:
    """The id of the notification that a silent process is back."""
    return digest(story, "back")[:32]


def _at_ms(story: Story, kind: Kind, now_ms: int) -> int:
    """When what is told happened. A repeat is of now: else a mail would sort under the first, hours ago, and an
    Alertmanager would take an incident for over that has been open for as long as an alert lasts there."""
    if kind == "repeat":
        return now_ms
    return story.ack.at_ms if kind == "annotation" and story.ack is not None else story.alert.at_ms


def _title(story: Story, kind: Kind) -> str:
    alert = story.alert
    marks = {"repeat": "still open: ", "flapping": "flapping: ", "annotation": "acknowledged: "}
    what = _WHAT[alert.transition] if _is_silence(alert) else _WHAT_OF_WINDOWS[alert.transition]
    cause = one_line(alert.cause_hint, NAME_CHARACTERS)
    return one_line(
        f"{alert.severity}: {marks.get(kind, '')}{what} on {_where(alert.lane)} ({cause})", TITLE_CHARACTERS
    )


def _lines(story: Story, kind: Kind, now_ms: int, openings: int) -> list[str]:
    alert = story.alert
    lines = _moved(alert)
    if alert.note:
        lines.append(one_line(alert.note, REASON_CHARACTERS))
    lines.append(_span(story))
    if kind == "flapping":
        lines.append(f"It opened {openings} times in a short while: held back from now on until it is calm.")
    if story.ended_ms is None and story.acknowledged(now_ms) and story.ack is not None:
        author, reason = one_line(story.ack.author, NAME_CHARACTERS), one_line(story.ack.reason, REASON_CHARACTERS)
        lines.append(f"acknowledged by {author} (as claimed): {reason}")
    return lines


def _moved(alert: Alert) -> list[str]:
    """What moved, from what to what."""
    lines = [_MEANS[alert.transition]] if alert.transition in _MEANS and _is_silence(alert) else []
    if alert.features_drifted:
        plural = "features" if alert.features_drifted > 1 else "feature"
        listed = "; ".join(map(_feature, alert.moved_most[:LISTED]))
        lines.append(f"{alert.features_drifted} {plural} drifted, share of requests that fire: {listed}")
    if alert.scores:
        lines.append("scores of requests, median: " + "; ".join(map(_score, alert.scores[:LISTED])))
    why = [evidence for evidence in alert.causes if evidence.points and evidence.cause != "data_shift"]  # the rest
    lines += [f"{one_line(e.cause, NAME_CHARACTERS)}: {one_line(e.text, REASON_CHARACTERS)}" for e in why[:LISTED]]
    lines += map(str, alert.traffic[:LISTED])
    lines += [one_line(line, REASON_CHARACTERS) for line in alert.creep.lines(LISTED)] if alert.creep else []
    if not alert.explanations_reliable:
        lines.append("The SAE is out of health: do not trust feature names now.")
    return lines


def _is_silence(alert: Alert) -> bool:
    """False of a lane whose windows do come, but do not count: its runbook says why."""
    return alert.transition not in _WHAT_OF_WINDOWS or alert.cause_hint == "no_windows"


def _where(lane: Lane) -> str:
    return f"{one_line(lane.model_id, NAME_CHARACTERS)}/{one_line(lane.hook_name, NAME_CHARACTERS)}"


def _lane_line(lane: Lane) -> str:
    names = {"tenant": lane.tenant, "model": lane.model_id, "revision": lane.model_revision, "hook": lane.hook_name}
    shown = ", ".join(f"{what} {one_line(name, NAME_CHARACTERS)}" for what, name in names.items())
    return f"{shown}, lane {lane.lane_id}"


def _span(story: Story) -> str:
    alert, began = story.alert, moment(story.started_at_ms)
    if story.ended_ms is not None:
        return f"from {began} to {moment(alert.at_ms)}"
    if not alert.opened_request:
        return f"since {began}"
    before = alert.opened_request - alert.change_estimate_request
    first = f"; a request-level test crossed at request {alert.evidence_request:,}" if alert.evidence_request else ""
    return f"since {began}; the change began about {before:,} requests earlier{first}"


def _page(alert: Alert) -> str:
    return alert.runbook or f"{alert.cause_hint}.md"


def _feature(drift: FeatureDrift) -> str:
    label = f" “{one_line(drift.label, NAME_CHARACTERS)}”" if drift.label else ""
    return f"{drift.feature}{label} {drift.direction} {drift.rate_baseline:.2%} → {drift.rate_now:.2%}"


def _score(drift: ScoreDrift) -> str:
    now = "not available" if drift.now_median is None else f"{drift.now_median:.4g}"
    return f"{one_line(drift.score, NAME_CHARACTERS)} {drift.direction} {drift.baseline_median:.4g} → {now}"


def silent_id(process: str, lane_id: str, last_ms: int) -> str:
    """The story of one death: the same after a restart of NOTIFY."""
    return digest(process, lane_id, last_ms)[:32]
