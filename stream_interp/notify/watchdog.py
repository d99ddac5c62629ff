"""Who has fallen silent: heartbeats and the newest status, judged every few seconds. Pure.

* A process is told as silent `silent_after_s` after its last heartbeat, also where others of its kind live (then as a
  warning). One that said `stopping` is told only if none of its kind lives.
* It is back when its slot (kind, instance and host) beats again under whatever pid, or when living processes of its
  kind hold all its partitions.
* What died long before NOTIFY began (heartbeats are kept for hours) is told only if none of its kind lives, the newest
  one alone, and only after all had `silent_after_s` to appear.
* Without any DETECT on the heartbeat topic, a stale newest status stands for it.
* While our own heartbeat does not come back, it is Kafka that is silent: only that is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from stream_interp.notify.notification import Notification
from stream_interp.notify.wording import Wording, silent_id
from stream_interp.records.heartbeat import Heartbeat
from stream_interp.records.lane import Lane

KINDS = ("encode", "detect")
PAUSE_MS = 15_000  # longer between two judgements: this machine was asleep


class Vouched(Struct, frozen=True):
    """What matters of a status here."""

    lane: Lane
    as_of_ms: int


class Pulse(NamedTuple):
    """The last heartbeat of a slot, and when it was heard."""

    heartbeat: Heartbeat
    heard_ms: int


class Silent(NamedTuple):
    """One that should speak and does not."""

    process: str
    lane: Lane | None
    last_ms: int
    alone: bool

    @property
    def story(self) -> str:
        """The same for this death, also after a restart of NOTIFY."""
        return silent_id(self.process, self.lane.lane_id if self.lane else "", self.last_ms)


class Watchdog:
    """What is known of the processes.

    Args:
        own: our own process id.
        started_ms: when we began.
        silent_after_ms: without a heartbeat.
        wording: of notifications.
    """

    def __init__(self, own: str, started_ms: int, silent_after_ms: int, wording: Wording) -> None:
        self._own, self._started_ms, self._after_ms, self._wording = own, started_ms, silent_after_ms, wording
        self._pulses: dict[str, Pulse] = {}
        self._newest: Vouched | None = None
        self._told: dict[str, str] = {}
        self._judged_ms, self._resumed_ms = started_ms, 0
        self.rival = ""  # an older process of our own slot that lives beside us

    def heard(self, heartbeat: Heartbeat, heard_ms: int) -> None:
        """A heartbeat. `heard_ms`: our clock at its arrival; the log's for those from before our start."""
        slot = slot_of(heartbeat.process_id)
        before = self._pulses.get(slot)
        if before is None or _age_key(heartbeat) >= _age_key(before.heartbeat):
            self._pulses[slot] = Pulse(heartbeat, heard_ms)
        is_other = slot == slot_of(self._own) and heartbeat.process_id != self._own
        if is_other and heartbeat.started_at_ms < self._started_ms < heartbeat.as_of_ms and not heartbeat.stopping:
            self.rival = heartbeat.process_id

    def seen(self, status: Vouched) -> None:
        """A status; the newest `as_of` counts."""
        if self._newest is None or status.as_of_ms > self._newest.as_of_ms:
            self._newest = status

    def resume(self, told: Mapping[str, str]) -> None:
        """Deaths that were told before we took over and not taken back: story → process."""
        self._told = dict(told)

    def judge(self, now_ms: int) -> list[Notification]:
        """Deaths that were not told yet, and returns of those that were."""
        if now_ms - self._judged_ms > PAUSE_MS:  # we slept, not they
            self._resumed_ms = now_ms
        self._judged_ms = now_ms
        silent = {one.story: one for one in self._silent(now_ms)}
        told = [
            self._wording.of_silence(story, one.process, one.lane, one.last_ms, now_ms, alone=one.alone)
            for story, one in silent.items()
            if story not in self._told
        ]
        living = {p.heartbeat.kind for p in self._pulses.values() if not self._is_stale(p.heard_ms, now_ms)}
        back = [s for s, process in self._told.items() if s not in silent and process.partition("-")[0] in living]
        told += [self._wording.of_return(story, self._told.pop(story), now_ms) for story in back]
        self._told |= {story: one.process for story, one in silent.items()}
        return told

    def _silent(self, now_ms: int) -> Iterator[Silent]:
        own = self._pulses.get(slot_of(self._own))
        own_ms = own.heard_ms if own is not None and own.heartbeat.process_id == self._own else self._started_ms
        if self._is_stale(own_ms, now_ms):
            yield Silent(self._own, None, own_ms, alone=True)
            return
        for kind in KINDS:
            yield from self._silent_of(kind, now_ms)
        if self._newest is not None and not any(p.heartbeat.kind == "detect" for p in self._pulses.values()):
            last_ms = self._newest.as_of_ms
            if self._is_stale(max(last_ms, self._started_ms), now_ms):
                yield Silent("detect", self._newest.lane, last_ms, alone=True)

    def _silent_of(self, kind: str, now_ms: int) -> Iterator[Silent]:
        pulses = {slot: pulse for slot, pulse in self._pulses.items() if pulse.heartbeat.kind == kind}
        dead = {slot: pulse for slot, pulse in pulses.items() if self._is_stale(pulse.heard_ms, now_ms)}
        living = [pulse for slot, pulse in pulses.items() if slot not in dead]
        held = {partition for pulse in living for partition in pulse.heartbeat.partitions}
        newest = max((pulse.heard_ms for pulse in dead.values()), default=0)
        for slot, pulse in dead.items():
            one = Silent(pulse.heartbeat.process_id, None, pulse.heartbeat.as_of_ms, alone=not living)
            long_ago = self._started_ms - pulse.heard_ms > self._after_ms
            known = one.story in self._told
            taken_over = known and set(pulse.heartbeat.partitions) <= held
            if living and (pulse.heartbeat.stopping or long_ago or taken_over):
                del self._pulses[slot]
            elif long_ago and not known and (pulse.heard_ms < newest or not self._is_stale(self._started_ms, now_ms)):
                continue
            else:
                yield one

    def _is_stale(self, heard_ms: int, now_ms: int) -> bool:
        return now_ms - max(heard_ms, self._resumed_ms) > self._after_ms


def slot_of(process_id: str) -> str:
    """A process id without its pid: a restarted process has the same."""
    return process_id.rpartition(":")[0] or process_id


def _age_key(heartbeat: Heartbeat) -> tuple[int, int]:
    return heartbeat.started_at_ms, heartbeat.as_of_ms
