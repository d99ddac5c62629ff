"""The rules of what is told when, without Kafka or sinks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from stream_interp.notify.desk import Held, Send
from stream_interp.notify.notification import Notification
from stream_interp.notify.silences import Silences
from stream_interp.notify.telling import Telling, told_silent, wording_of
from stream_interp.notify.wording import return_id
from stream_interp.records.alert import Alert
from stream_interp.records.annotation import Annotation
from stream_interp.records.delivery import Delivery
from stream_interp.records.lane import Lane
from stream_interp.settings import NotifySettings, RouteSettings
from tests.notify.alerts import LANE, START_MS, alert, annotation, place

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass
class Office:
    """One or more sinks that answer at once; restarts keep what was recorded."""

    notify: NotifySettings = field(default_factory=NotifySettings)
    sinks: tuple[str, ...] = ("a",)
    answers: Callable[[str], bool] = lambda _: True
    begun_s: float = -DAY * 30
    ledger: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    log: list[tuple[Alert | Annotation, float]] = field(default_factory=list)
    sent: list[tuple[str, Notification]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        begun = dict.fromkeys(self.sinks, START_MS + round(self.begun_s * 1000))
        self.telling = Telling(self.notify, begun, lambda sink, event: self.ledger.get((sink, event)))

    def missed(self, record: Alert | Annotation, at_s: float) -> None:
        """On the log, while NOTIFY is not there."""
        self.log.append((record, at_s))

    def take(self, record: Alert | Annotation, at_s: float | None = None) -> list[Notification]:
        """A record and what came of it at once, at the first sink."""
        if at_s is None:
            at_s = (record.at_ms - START_MS) / 1000
        self.log.append((record, at_s))
        story = self.telling.take(record, place(len(self.log) - 1, at_s))
        return self._send(at_s, story) if story else []

    def at(self, at_s: float) -> list[Notification]:
        return self._send(at_s, None)

    def restart(self, at_s: float) -> list[Notification]:
        self._begin()
        for offset, (record, logged_s) in enumerate(self.log):
            self.telling.take(record, place(offset, logged_s))
        self.telling.resume(d for d in self.ledger.values() if d.outcome == "delivered")
        return self.at(at_s)

    def _send(self, at_s: float, only: str | None) -> list[Notification]:
        now_ms, found = START_MS + round(at_s * 1000), []
        for sink, decision in list(self.telling.due(now_ms, dict.fromkeys(self.sinks, 100), only)):
            if isinstance(decision, Held):
                for event_id in decision.event_ids:
                    self._record(sink, event_id, "silenced", now_ms, decision.detail, decision.story)
                continue
            assert isinstance(decision, Send)
            notification, delivered = decision.notification, self.answers(sink)
            for event_id in notification.event_ids or [notification.id]:
                outcome = "delivered" if delivered else "failed"
                self._record(sink, event_id, outcome, now_ms, notification.kind, notification.story)
            self.telling.done(sink, notification, delivered, now_ms)
            self.sent.append((sink, notification))
            found.append(notification)
        return found

    def _record(self, sink: str, event_id: str, outcome: str, at_ms: int, detail: str, story: str) -> None:
        self.ledger[sink, event_id] = Delivery(
            sink=sink, event_id=event_id, outcome=outcome, attempts=1, at_ms=at_ms, detail=detail, incident_id=story  # type: ignore[arg-type]
        )  # fmt: skip

    def outcome(self, record: Alert, sink: str = "a") -> str | None:
        found = self.ledger.get((sink, record.event_id))
        return found.outcome if found else None


def kinds(notifications: list[Notification]) -> list[tuple[str, str]]:
    return [(n.kind, n.phase) for n in notifications]


def test_first_notification_never_waits_and_updates_go_out_together() -> None:
    office, first = Office(), alert("opened")
    assert [n.id for n in office.take(first)] == [first.event_id]
    updates = [alert("updated", at_s=10), alert("updated", at_s=20)]
    assert [office.take(one) for one in updates] == [[], []]
    assert office.at(59.0) == []
    (together,) = office.at(60.0)
    assert together.id == updates[-1].event_id
    assert together.event_ids == [one.event_id for one in updates]
    assert together.story == first.incident_id
    assert office.at(61.0) == []


@pytest.mark.parametrize("transition", ["escalated", "resolved"])
def test_what_matters_does_not_wait_and_takes_along_what_waited(transition: str) -> None:
    office = Office()
    office.take(alert("opened"))
    waiting, last = alert("updated", at_s=5), alert(transition, at_s=6)
    office.take(waiting)
    (sent,) = office.take(last)
    assert sent.event_ids == [waiting.event_id, last.event_id]
    assert sent.phase == ("resolved" if transition == "resolved" else "firing")


def test_every_incident_is_a_group_of_its_own() -> None:
    office = Office()
    assert len(office.take(alert("opened", "i1"))) == 1
    assert len(office.take(alert("opened", "i2", at_s=1, lane=Lane(model_id="other", hook_name="h")))) == 1


def test_open_incidents_are_repeated_until_somebody_cares() -> None:
    office, first = Office(), alert("opened")
    office.take(first)
    assert office.at(4 * HOUR - 1) == []
    (repeat,) = office.at(4 * HOUR)
    assert (repeat.kind, repeat.event_ids) == ("repeat", [])
    assert repeat.at_ms == START_MS + round(4 * HOUR * 1000)  # a mail's date: not under the first one
    assert repeat.id != first.event_id
    assert office.restart(4 * HOUR + 1) == []
    (again,) = office.at(8 * HOUR)
    assert again.id != repeat.id
    acked = office.take(annotation("ack", 8.5 * HOUR, incident="i1"))
    assert kinds(acked) == [("annotation", "acknowledged")]
    assert "ann" in acked[0].text
    assert acked[0].at_ms == START_MS + round(8.5 * HOUR * 1000)
    assert office.at(100 * HOUR) == []
    assert office.restart(101 * HOUR) == []


def test_an_ack_with_an_end_ends() -> None:
    office = Office()
    office.take(alert("opened"))
    office.take(annotation("ack", 10, until_s=5 * HOUR, incident="i1"))
    assert office.at(5 * HOUR - 1) == []
    assert kinds(office.at(5 * HOUR)) == [("repeat", "firing")]


def test_a_silenced_lane_is_recorded_and_told_when_it_ends() -> None:
    office = Office()
    assert office.take(annotation("silence", 0, until_s=2 * HOUR)) == []
    stays, passes = alert("opened", "i1", at_s=10), alert("opened", "i2", at_s=20)
    ends = alert("resolved", "i2", at_s=30)
    assert [office.take(one) for one in (stays, passes, ends)] == [[], [], []]
    assert [office.outcome(one) for one in (stays, passes, ends)] == ["silenced"] * 3
    assert office.restart(HOUR) == []
    (told,) = office.at(2 * HOUR)
    assert told.event_ids == [stays.event_id]
    assert office.outcome(stays) == "delivered"
    assert office.restart(3 * HOUR) == []


def test_unsilence_ends_it_early_and_a_resolution_inside_is_told_then() -> None:
    office = Office()
    office.take(alert("opened"))
    office.take(annotation("silence", 10, until_s=DAY))
    assert office.take(alert("resolved", at_s=20)) == []
    assert office.at(30) == []
    office.take(annotation("unsilence", 40))
    assert kinds(office.at(41)) == [("alert", "resolved")]


def test_blind_is_silenced_for_a_day_only_drift_for_a_week_at_most() -> None:
    office = Office()
    office.take(annotation("silence", 0, until_s=100 * DAY))
    office.take(alert("blind", "lane", at_s=10, cause_hint="no_windows"))
    office.take(alert("opened", "i1", at_s=10))
    assert office.at(DAY - 1) == []
    assert [n.story for n in office.at(DAY)] == ["lane"]
    assert [n.story for n in office.at(7 * DAY - 1)] == ["lane"]  # a repeat
    assert "i1" in [n.story for n in office.at(7 * DAY)]


def test_a_silence_without_an_end_which_no_status_shows_holds_nothing_back() -> None:
    office = Office()
    office.take(annotation("silence", 0))
    assert len(office.take(alert("opened", at_s=1))) == 1


def test_another_lane_is_not_silenced() -> None:
    office = Office()
    office.take(annotation("silence", 0, until_s=HOUR, lane=Lane(model_id="other", hook_name="h")))
    assert len(office.take(alert("opened", at_s=1))) == 1


def test_what_opened_and_ended_in_a_silence_is_not_told_after_an_outage() -> None:
    office = Office()
    office.missed(annotation("silence", 0, until_s=HOUR), 0)
    office.missed(alert("opened", at_s=10), 10)
    office.missed(alert("resolved", at_s=20), 20)
    assert office.restart(2 * HOUR) == []


def test_flapping_is_told_once_then_held_back_until_calm() -> None:
    office = Office(NotifySettings(flap_limit=2))
    for number in range(2):
        assert len(office.take(alert("opened", f"i{number}", at_s=100 * number))) == 1
        assert len(office.take(alert("resolved", f"i{number}", at_s=100 * number + 50))) == 1
    (told,) = office.take(alert("opened", "i2", at_s=200))
    assert (told.kind, told.story) == ("flapping", "i2")
    assert "3 times" in told.text
    assert office.take(alert("resolved", "i2", at_s=250)) == []
    held = [alert("opened", "i3", at_s=300), alert("resolved", "i3", at_s=310), alert("opened", "i4", at_s=400)]
    assert [office.take(one) for one in held] == [[], [], []]
    assert {office.outcome(one) for one in held} == {"silenced"}
    assert office.restart(500) == []
    after = office.at(400 + HOUR)
    assert {(n.story, n.phase) for n in after} == {("i2", "resolved"), ("i4", "firing")}


def test_an_escalation_goes_out_while_flapping() -> None:
    office = Office(NotifySettings(flap_limit=1))
    office.take(alert("opened", "i0"))
    office.take(alert("resolved", "i0", at_s=1))
    office.take(alert("opened", "i1", at_s=2))
    (sent,) = office.take(alert("escalated", "i1", at_s=3))
    assert sent.severity == "critical"


def test_after_an_outage_one_message_per_incident_with_its_current_state() -> None:
    office = Office()
    office.take(alert("opened", "i1"))
    for second, transition in enumerate(("updated", "updated", "escalated"), 1):
        office.missed(alert(transition, "i1", at_s=second), second)
    office.missed(alert("opened", "i2", at_s=5), 5)
    office.missed(alert("resolved", "i2", at_s=9), 9)
    found = {n.story: n for n in office.restart(HOUR)}
    assert {story: (n.phase, n.severity, len(n.event_ids)) for story, n in found.items()} == {
        "i1": ("firing", "critical", 3),
        "i2": ("resolved", "warning", 2),
    }
    assert office.restart(HOUR + 1) == []


def test_what_opened_and_ended_long_ago_is_one_digest() -> None:
    office = Office()
    office.take(alert("opened", "told"))
    for number in range(30):
        office.missed(alert("opened", f"i{number}", at_s=10 + number), 10)
        office.missed(alert("resolved", f"i{number}", at_s=100 + number), 100)
    office.missed(alert("resolved", "told", at_s=50), 50)
    office.missed(alert("opened", "open", at_s=60), 60)
    found = office.restart(2 * DAY)
    assert sorted(kinds(found)) == [("alert", "firing"), ("alert", "resolved"), ("digest", "resolved")]
    (digest,) = [n for n in found if n.kind == "digest"]
    assert len(digest.event_ids) == 60
    assert "30 incidents" in digest.title
    assert "and 10 more" in digest.text
    assert office.restart(2 * DAY + 1) == []


def test_a_sink_hears_only_of_what_comes_after_its_beginning() -> None:
    office = Office(begun_s=100.0)
    office.missed(alert("opened", "i1", at_s=99), 99)
    assert office.restart(100) == []
    (first,) = office.take(alert("updated", "i1", at_s=101))
    assert len(first.event_ids) == 1


def test_a_lane_that_goes_blind_again_is_told_again() -> None:
    office = Office()
    trouble = [("blind", 0), ("seeing", 10), ("blind", 20), ("seeing", 30)]
    told = [office.take(alert(transition, "lane", at_s=at_s, cause_hint="no_windows")) for transition, at_s in trouble]
    assert [n.phase for (n,) in told] == ["firing", "resolved", "firing", "resolved"]


def test_routes_and_the_end_of_a_story() -> None:
    routes = [
        RouteSettings(severity="critical", sinks=["pager"]),
        RouteSettings(tenant="bank", cause="data_*", sinks=["chat"]),
    ]
    office = Office(NotifySettings(routes=routes), sinks=("pager", "chat", "unused"))
    bank = Lane(tenant="bank", model_id="m", hook_name="h")
    office.take(alert("opened", lane=bank))
    office.take(alert("escalated", at_s=1, lane=bank))
    office.take(alert("resolved", at_s=2, lane=bank))
    office.take(alert("opened", "i2", at_s=3))
    office.take(alert("blind", "lane", at_s=4, cause_hint="no_windows"))
    office.take(alert("seeing", "lane", at_s=5, cause_hint="no_windows"))  # of severity info
    told = [(sink, n.alert.transition) for sink, n in office.sent if n.alert]
    assert [t for s, t in told if s == "pager"] == ["escalated", "resolved", "blind", "seeing"]
    assert [t for s, t in told if s == "chat"] == ["opened", "escalated", "resolved"]
    assert "unused" not in {sink for sink, _ in told}


def test_a_failed_first_notification_is_tried_with_what_comes_next_and_by_repeats() -> None:
    answers = [False, True, True]
    office = Office(answers=lambda _: answers.pop(0))
    first = alert("opened")
    office.take(first)
    assert office.outcome(first) == "failed"
    (second,) = office.take(alert("updated", at_s=1))  # at once: nothing of the story has arrived yet
    assert second.kind == "alert"
    assert len(office.at(1 + 4 * HOUR)) == 1


def test_nothing_of_a_story_is_sent_while_a_notification_of_it_is_under_way() -> None:
    telling = Telling(NotifySettings(), {"a": 0}, lambda *_: None)
    story = telling.take(alert("opened"), place(0, 0))
    ((_, first),) = list(telling.due(START_MS, {"a": 100}, story))
    telling.take(alert("escalated", at_s=1), place(1, 1))
    assert list(telling.due(START_MS + 1_000, {"a": 100})) == []
    assert isinstance(first, Send)
    telling.done("a", first.notification, True, START_MS + 2_000)
    ((_, second),) = list(telling.due(START_MS + 2_000, {"a": 100}))
    assert isinstance(second, Send)
    assert second.notification.severity == "critical"


def test_a_full_queue_waits_at_the_desk() -> None:
    telling = Telling(NotifySettings(), {"a": 0}, lambda *_: None)
    for number in range(5):
        telling.take(alert("opened", f"i{number}"), place(number, 0))
    assert len(list(telling.due(START_MS, {"a": 2}))) == 2
    assert len(list(telling.due(START_MS, {"a": 0}))) == 0
    assert len(list(telling.due(START_MS, {"a": 9}))) == 3


def test_finished_stories_are_forgotten() -> None:
    office = Office(NotifySettings(flap_limit=100))
    for number in range(50):
        office.take(alert("opened", f"i{number}", at_s=number))
        office.take(alert("resolved", f"i{number}", at_s=number + 0.5))
    office.at(100)
    office.at(101)
    assert office.telling._stories._stories == {}
    assert all(not desk._told for desk in office.telling._desks.values())


def test_a_silent_process_goes_to_routes_of_its_cause_once() -> None:
    routes = [RouteSettings(tenant="bank", sinks=["a"]), RouteSettings(cause="data_shift", sinks=["b"])]
    office = Office(NotifySettings(routes=routes), sinks=("a", "b"))
    silent = wording_of(office.notify).of_silence("s" * 32, "detect-0@h:1", None, START_MS, START_MS, alone=True)
    office.telling.tell_of_process(silent)
    assert kinds(office.at(1)) == [("silent", "firing")]
    office.telling.tell_of_process(silent)
    assert office.at(2) == []
    assert {sink for sink, _ in office.sent} == {"a"}


def test_deaths_told_before_a_restart() -> None:
    deliveries = [
        Delivery(sink="a", event_id=event_id, outcome="delivered", attempts=1, at_ms=0, detail=detail)
        for event_id, detail in (("s1", "detector silent: detect-0@h:1"), ("s2", "detector silent: encode-0@h:1"),
                                 (return_id("s2"), "detector back: encode-0@h:1"), ("e1", "alert"))
    ]  # fmt: skip
    assert told_silent(deliveries, {"a"}) == {"s1": "detect-0@h:1"}
    elsewhere = [structs.replace(one, sink="b") for one in deliveries[:2]]  # b was not told that s2 is back
    assert told_silent(deliveries + elsewhere, {"a", "b"}) == {"s1": "detect-0@h:1", "s2": "encode-0@h:1"}
    assert told_silent(deliveries + elsewhere, {"a", "c"}) == {"s1": "detect-0@h:1"}


def test_hostile_names_are_inert_and_short() -> None:
    hostile = "<script>\x1b[31m\n" * 700
    lane = Lane(tenant=hostile, model_id=hostile, hook_name=hostile, model_revision=hostile)
    office = Office(NotifySettings(ui_url="http://ui/", runbook_url="http://runbooks"))
    (sent,) = office.take(alert("opened", lane=lane, cause_hint="../../../etc"))
    assert "\n" not in sent.title
    assert "\x1b" not in sent.title + sent.text
    assert len(sent.title) <= 300
    assert len(sent.text) < 2_000
    assert sent.links == {"ui": "http://ui/incidents/i1"}
    (fine,) = office.take(alert("opened", "i2", at_s=1))
    assert fine.links["runbook"] == "http://runbooks/data_shift.md"


def test_times_beyond_the_calendar_are_told_all_the_same() -> None:
    (sent,) = Office().take(alert("opened", at_ms=10**17), at_s=0)
    assert "9999" in sent.text
    assert LANE.lane_id in sent.text


def test_a_flood_of_silences_and_their_ends_costs_little() -> None:
    silences = Silences()
    for number in range(6_000):
        silences.take(annotation("unsilence", number * 0.001))
        silences.take(annotation("silence", 10 + number * 0.001, until_s=HOUR))
    began_s = time.process_time()
    assert silences.active(LANE.lane_id, of_lane=False, now_ms=START_MS + 60_000) is not None
    silences.take(annotation("unsilence", 30))
    assert silences.active(LANE.lane_id, of_lane=False, now_ms=START_MS + 60_000) is None
    assert time.process_time() - began_s < 0.5
