"""Who has fallen silent."""

from __future__ import annotations

from msgspec import structs

from stream_interp.notify.notification import Notification
from stream_interp.notify.watchdog import MAX_SLOTS, PAUSE_MS, Vouched, Watchdog
from stream_interp.notify.wording import Wording, return_id
from stream_interp.records.heartbeat import Heartbeat
from tests.notify.alerts import LANE, START_MS

OWN = "notify-0@host:9"
AFTER_S = 45


class Yard:
    """A watchdog, our own heartbeat every five seconds, and a clock."""

    def __init__(self, own: bool = True) -> None:
        self.dog = Watchdog(OWN, START_MS, AFTER_S * 1000, Wording("", "runbooks"))
        self._own, self._judged_s = own, 0

    def beat(self, process: str, at_s: float, started_s: float = -1000, **more: object) -> None:
        at_ms = START_MS + round(at_s * 1000)
        beat = Heartbeat(
            process_id=process, kind=process.partition("-")[0], as_of_ms=at_ms,  # type: ignore[arg-type]
            started_at_ms=START_MS + round(started_s * 1000), version="0",
        )  # fmt: skip
        hear = self.dog.heard_before if at_s < 0 else self.dog.heard
        hear(structs.replace(beat, **more), at_ms)

    def until(self, at_s: int) -> list[tuple[int, Notification]]:
        """Judges every second."""
        told = []
        for second in range(self._judged_s, at_s + 1):
            if self._own and second % 5 == 0:
                self.beat(OWN, second)
            steady_ms = START_MS + second * 1000
            self.dog.turn(steady_ms)
            told += [(second, n) for n in self.dog.judge(steady_ms, steady_ms)]
        self._judged_s = at_s + 1
        return told


def titles(told: list[tuple[int, Notification]]) -> list[str]:
    return [n.title for _, n in told]


def test_a_death_is_told_within_a_minute_once() -> None:
    yard = Yard()
    yard.beat("detect-0@host:1", 10)
    yard.beat("encode-0@host:2", 200)
    ((second, told),) = yard.until(150)
    assert second == 10 + AFTER_S + 1
    assert (told.title, told.severity, told.phase) == ("detector silent: detect-0@host:1", "critical", "firing")
    assert told.links == {"runbook": "runbooks/detector_silent.md"}
    assert told.id == told.story


def test_it_is_back_under_another_pid() -> None:
    yard = Yard()
    yard.beat("detect-0@host:1", 10)
    ((_, died),) = yard.until(100)
    yard.beat("detect-0@host:7", 101, started_s=100)
    yard.beat("detect-0@host:1", 101)  # a late record of the dead one
    ((_, back),) = yard.until(110)
    assert (back.story, back.phase, back.id) == (died.story, "resolved", return_id(died.story))
    assert "detect-0@host:1" in back.title


def test_a_restart_in_time_is_no_news() -> None:
    yard = Yard()
    yard.beat("detect-0@host:1", 10)
    yard.until(40)
    yard.beat("detect-0@host:2", 41, started_s=40)
    assert yard.until(80) == []


def test_a_crash_beside_living_ones_is_a_warning_that_ends_when_its_work_is_taken_over() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", 0, partitions=["w/0"])
    for second in range(0, 100, 5):
        yard.beat("detect-0@b:1", second, partitions=["w/0", "w/1"] if second > 10 else ["w/1"])
    told = yard.until(60)
    assert [(n.phase, n.severity) for _, n in told] == [("firing", "warning"), ("resolved", "info")]
    yard.beat("detect-0@b:1", 61)
    assert yard.until(100) == []


def test_who_said_stopping_is_told_only_if_none_of_its_kind_lives() -> None:
    yard = Yard()
    for process in ("detect-0@a:1", "encode-0@a:1"):
        yard.beat(process, 0, stopping=True)
    yard.beat("encode-1@a:1", 100)
    assert titles(yard.until(100)) == ["detector silent: detect-0@a:1"]


def test_deaths_from_long_before_our_start() -> None:
    yard = Yard()
    yard.beat("encode-0@old:1", -3600)
    yard.beat("encode-1@host:1", 60)  # lives: the old pod was replaced
    yard.beat("detect-0@old:1", -7200)
    yard.beat("detect-0@newer:1", -3600)
    told = yard.until(100)
    assert titles(told) == ["detector silent: detect-0@newer:1"]
    assert told[0][0] > AFTER_S  # all had time to appear


def test_deaths_from_just_before_our_start_are_told_in_time() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", -30)
    ((second, _),) = yard.until(60)
    assert second == AFTER_S - 30 + 1


def test_without_any_detector_the_newest_status_speaks() -> None:
    yard = Yard()
    yard.dog.seen_before(Vouched(LANE, START_MS - 10**8), START_MS - 10**8)
    yard.dog.seen_before(Vouched(LANE, START_MS - 10**7), START_MS - 10**7)
    ((second, told),) = yard.until(100)
    assert second == AFTER_S + 1
    assert LANE.lane_id in told.text
    yard.beat("detect-0@a:1", 101)
    assert yard.until(110) == []  # it beats, and still publishes nothing
    yard.dog.seen(Vouched(LANE, START_MS + 111_000), START_MS + 111_000)
    assert [n.phase for _, n in yard.until(112)] == ["resolved"]


def test_a_detector_that_beats_and_publishes_nothing_is_told() -> None:
    yard = Yard()
    for second in range(0, 300, 5):
        yard.beat("detect-0@a:1", second)
        if second < 60 or second >= 200:
            yard.dog.seen(Vouched(LANE, START_MS + second * 1000), START_MS + second * 1000)
        told = yard.until(second)
        expected = {105: ["critical"], 200: ["info"]}.get(second, [])
        assert [n.severity for _, n in told] == expected, second


def test_a_detector_that_restarts_has_time_to_publish() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", 0)
    yard.dog.seen(Vouched(LANE, START_MS), START_MS)
    assert titles(yard.until(600)) == ["detector silent: detect-0@a:1"]
    for second in range(601, 660, 5):
        yard.beat("detect-0@a:2", second)
        if second > 640:
            yard.dog.seen(Vouched(LANE, START_MS + second * 1000), START_MS + second * 1000)
        assert titles(yard.until(second)) == (["detector back: detect-0@a:1"] if second == 601 else [])


def test_rare_statuses_are_no_death() -> None:
    yard = Yard()
    yard.dog = Watchdog(OWN, START_MS, AFTER_S * 1000, Wording("", "runbooks"), status_ms=60_000)
    for second in range(0, 600, 5):
        yard.beat("detect-0@a:1", second)
        if second % 60 == 0:
            yard.dog.seen(Vouched(LANE, START_MS + second * 1000), START_MS + second * 1000)
        assert yard.until(second) == []


def test_a_fresh_status_is_no_death() -> None:
    yard = Yard()
    yard.dog.seen(Vouched(LANE, START_MS + 99_000), START_MS + 99_000)
    assert yard.until(100) == []


def test_where_our_own_heartbeat_does_not_come_back_only_that_is_told() -> None:
    yard = Yard(own=False)
    yard.beat("detect-0@a:1", 1)
    yard.beat("encode-0@a:1", 1)
    told = yard.until(80)
    assert titles(told) == [f"detector silent: {OWN}"]
    yard.beat(OWN, 81)
    yard.beat("detect-0@a:1", 81)
    yard.beat("encode-0@a:1", 81)
    assert [n.phase for _, n in yard.until(91)] == ["resolved"]


def test_after_kafka_was_away_the_others_have_time_to_be_heard_again() -> None:
    yard = Yard(own=False)
    for process in (OWN, "detect-0@a:1", "encode-0@a:1"):
        yard.beat(process, 1)
    yard.until(44)
    yard.beat(OWN, 45)  # 44 s without Kafka; ours is the first to come through
    assert yard.until(52) == []
    yard.beat("detect-0@a:1", 53)
    ((second, died),) = yard.until(80)
    assert (second, died.title) == (55, "detector silent: encode-0@a:1")  # a death meanwhile is told in time


def test_after_kafka_was_away_a_detector_has_time_to_publish_again() -> None:
    yard = Yard(own=False)
    for second in (1, *range(43, 120, 5)):
        for process in (OWN, "detect-0@a:1", "encode-0@a:1"):
            yard.beat(process, second)
        if second == 1 or second > 70:  # it joins its group again, and restores its lanes
            yard.dog.seen(Vouched(LANE, START_MS + second * 1000), START_MS + second * 1000)
        assert yard.until(second) == []


def test_while_kafka_is_away_nobody_is_accused_before_it() -> None:
    yard = Yard(own=False)
    yard.beat("detect-0@a:1", 1)
    yard.beat(OWN, 5)  # the last that came through
    ((second, told),) = yard.until(120)
    assert (second, told.title) == (5 + AFTER_S + 1, f"detector silent: {OWN}")


def test_a_clock_that_steps_back_is_no_death_and_one_that_lied_hides_none() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", 0)
    yard.beat("detect-0@a:1", 1, as_of_ms=2**62)
    for second in range(2, 100, 5):
        yard.beat("detect-0@a:1", second, as_of_ms=START_MS + second - 3_600_000)
        yard.until(second)
    yard.beat("detect-0@a:2", 104, started_s=-9_000)  # restarted after its clock was set back
    yard.beat("detect-0@a:2", 109, started_s=-9_000)
    yard.beat("detect-0@a:2", 120, started_s=-9_000)
    assert yard.until(160) == []
    assert titles(yard.until(170)) == ["detector silent: detect-0@a:2"]


def test_forged_heartbeats_of_our_own_deafen_nobody() -> None:
    yard = Yard()
    yard.beat(OWN, 0, as_of_ms=2**62, started_at_ms=2**62)
    yard.beat("notify-0@host:77", 1, as_of_ms=2**62, started_at_ms=2**62)
    yard.beat("detect-0@a:1", 10)
    assert titles(yard.until(100)) == ["detector silent: detect-0@a:1"]
    assert yard.dog.rival == ""


def test_heartbeats_of_very_many_processes_do_not_fill_the_memory() -> None:
    yard = Yard()
    for number in range(MAX_SLOTS + 100):
        yard.beat(f"encode-{number}@a:1", 1)
    yard.beat("encode-0@b:1", 2)
    assert len(yard.until(60)) == MAX_SLOTS - 1  # and our own


def test_who_waited_beside_the_leader_tells_in_time() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", 10)
    for second in range(55):  # it follows, another one leads
        yard.dog.turn(START_MS + second * 1000)
        yard.beat(OWN, second)
    steady_ms = START_MS + 56_000
    assert [n.title for n in yard.dog.judge(steady_ms, steady_ms)] == ["detector silent: detect-0@a:1"]


def test_a_machine_that_slept_accuses_nobody() -> None:
    yard = Yard()
    yard.beat("detect-0@a:1", 10)
    yard.until(12)
    late_ms = START_MS + 12_000 + PAUSE_MS + 600_000
    yard.dog.turn(late_ms)
    assert yard.dog.judge(late_ms, late_ms) == []
    yard.dog.turn(late_ms + 1_000)
    assert yard.dog.judge(late_ms + 1_000, late_ms) == []


def test_what_was_told_before_a_restart_is_taken_back_only_on_a_sign_of_life() -> None:
    first = Yard()
    first.beat("detect-0@a:1", 10)
    ((_, died),) = first.until(100)
    second = Yard()
    second.dog.resume({died.story: "detect-0@a:1"})
    second.beat("encode-0@a:1", 30)
    assert second.until(40) == []
    second.beat("detect-0@b:1", 41)
    assert [n.id for _, n in second.until(50)] == [return_id(died.story)]


def test_a_death_that_lasts_is_told_again_after_a_restart_for_the_sinks_that_did_not_hear_of_it() -> None:
    first = Yard()
    first.beat("detect-0@a:1", -60)
    ((_, died),) = first.until(100)
    second = Yard()
    second.beat("detect-0@a:1", -60)
    second.dog.resume({died.story: "detect-0@a:1"})
    assert [n.id for _, n in second.until(100)] == [died.id]


def test_a_rival_is_an_older_process_of_our_slot_that_lives() -> None:
    yard = Yard()
    yard.beat("notify-0@host:1", -1, started_s=-100)  # our dead predecessor
    yard.beat("notify-1@host:2", 5, started_s=-100)
    yard.beat("notify-0@host:3", 5, started_s=3)  # came after us: it is the one to go
    assert yard.dog.rival == ""
    yard.beat("notify-0@host:1", 5, started_s=-100)
    assert yard.dog.rival == "notify-0@host:1"
