"""Who has fallen silent: heartbeats and the newest status, judged every few seconds. Pure.

* A process is told as silent `silent_after_s` after its last heartbeat, also where others of its kind live (then as a
  warning). One that said `stopping` is told only if none of its kind lives.
* It is back when its slot (kind, instance and host) beats again under whatever pid, or when living processes of its
  kind hold all its partitions.
* What died long before NOTIFY began (heartbeats are kept for hours) is told only if none of its kind lives, the newest
  one alone, and only after all had `silent_after_s` to appear.
* A stale newest status stands for DETECT where none is on the heartbeat topic, and where one beats but publishes
  nothing, `silent_after_s` after it came. Such a silence ends with the next status.
* While our own heartbeat does not come back, it is Kafka that is silent: the others are not judged, and after
  `silent_after_s` that is told. Once it is back, the others have a few seconds to be heard, too.
* All ages are differences of one steady clock, from what we heard when. What records say of their own time is shown,
  and decides nothing: a host whose clock steps, or a record that lies, is neither accused nor made to live for ever.
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
PAUSE_MS = 15_000  # longer between two turns: this machine was asleep; between two of our heartbeats: Kafka was away
SETTLE_MS = 10_000  # after Kafka was away: heartbeats come every 5 s, once a client is connected again
MAX_SLOTS = 1_000  # those heard of longest ago go first: whoever can write heartbeats must not fill the memory


class Vouched(Struct, frozen=True):
    """What matters of a status here."""

    lane: Lane
    as_of_ms: int


class Seen(NamedTuple):
    """The last status, and when it was heard."""

    status: Vouched
    heard_ms: int


class Pulse(NamedTuple):
    """The last heartbeat of a slot, when it was heard, and since when the process has been heard without a gap."""

    heartbeat: Heartbeat
    heard_ms: int
    since_ms: int


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
    """What is known of the processes. Times named `steady_ms` and `heard_ms` are of one clock that is never set.

    Args:
        own: our own process id.
        started_ms: when we began, Unix epoch ms; the steady clock began there, too.
        silent_after_ms: without a heartbeat.
        wording: of notifications.
        status_ms: between two statuses of a lane; three may be missed.
    """

    def __init__(
        self, own: str, started_ms: int, silent_after_ms: int, wording: Wording, status_ms: int = 5_000
    ) -> None:
        self._own, self._started_ms, self._after_ms, self._wording = own, started_ms, silent_after_ms, wording
        self._patience_ms = max(0, 3 * status_ms - silent_after_ms)
        self._pulses: dict[str, Pulse] = {}
        self._newest: Seen | None = None
        self._told: dict[str, str] = {}
        self._resumed = frozenset[str]()
        self._own_heard_ms = self._turned_ms = started_ms
        self._awake_ms = self._settled_ms = 0
        self.rival = ""  # an older process of our own slot that lives beside us

    def heard_before(self, heartbeat: Heartbeat, logged_ms: int) -> None:
        """A heartbeat from before our start, with the log's time of it."""
        self._take(heartbeat, min(logged_ms, self._started_ms))

    def heard(self, heartbeat: Heartbeat, steady_ms: int) -> None:
        """A heartbeat, now."""
        if heartbeat.process_id == self._own:
            if steady_ms - self._own_heard_ms > PAUSE_MS:
                self._settled_ms = steady_ms + SETTLE_MS
            self._own_heard_ms = steady_ms
        elif slot_of(heartbeat.process_id) == slot_of(self._own):
            lives = heartbeat.started_at_ms < self._started_ms < heartbeat.as_of_ms and not heartbeat.stopping
            self.rival = heartbeat.process_id if lives else self.rival
        self._take(heartbeat, steady_ms)

    def seen_before(self, status: Vouched, logged_ms: int) -> None:
        """A status from before our start, with the log's time of it; in the order of partitions, not of time."""
        heard_ms = min(logged_ms, self._started_ms)
        if self._newest is None or heard_ms >= self._newest.heard_ms:
            self._newest = Seen(status, heard_ms)

    def seen(self, status: Vouched, steady_ms: int) -> None:
        """A status, now."""
        self._newest = Seen(status, steady_ms)

    def resume(self, told: Mapping[str, str]) -> None:
        """Deaths that were told before we took over and not taken back: story → process.

        Those that last are told once more: not every sink may have heard of them.
        """
        self._told, self._resumed = dict(told), frozenset(told)

    def turn(self, steady_ms: int) -> None:
        """Call it several times a second, also while another process leads."""
        if steady_ms - self._turned_ms > PAUSE_MS:  # we slept, not they
            self._awake_ms = steady_ms
        self._turned_ms = steady_ms

    def judge(self, steady_ms: int, now_ms: int) -> list[Notification]:
        """Deaths that were not told yet, and returns of those that were. `now_ms`: Unix epoch, to be shown."""
        own_silent_ms = steady_ms - max(self._own_heard_ms, self._awake_ms)
        if steady_ms < self._settled_ms or PAUSE_MS < own_silent_ms <= self._after_ms:
            return []
        silent = {one.story: one for one in self._silent(steady_ms)}
        told = [
            self._wording.of_silence(story, one.process, one.lane, one.last_ms, now_ms, alone=one.alone)
            for story, one in silent.items()
            if story not in self._told or story in self._resumed
        ]
        self._resumed -= silent.keys()
        living = {p.heartbeat.kind for p in self._pulses.values() if not self._is_stale(p.heard_ms, steady_ms)}
        back = [s for s, process in self._told.items() if s not in silent and process.partition("-")[0] in living]
        told += [self._wording.of_return(story, self._told.pop(story), now_ms) for story in back]
        self._told |= {story: one.process for story, one in silent.items()}
        return told

    def _take(self, heartbeat: Heartbeat, heard_ms: int) -> None:
        slot = slot_of(heartbeat.process_id)
        before = self._pulses.pop(slot, None)
        if before is not None and _is_predecessor(heartbeat, heard_ms, before):
            self._pulses[slot] = before
            return
        since_ms = heard_ms
        if before is not None and before.heartbeat.process_id == heartbeat.process_id:
            since_ms = heard_ms if self._is_stale(before.heard_ms, heard_ms) else before.since_ms
        self._pulses[slot] = Pulse(heartbeat, heard_ms, since_ms)
        if len(self._pulses) > MAX_SLOTS:
            del self._pulses[next(iter(self._pulses))]

    def _silent(self, now_ms: int) -> Iterator[Silent]:
        if self._is_stale(self._own_heard_ms, now_ms):
            yield Silent(self._own, None, self._own_heard_ms, alone=True)
            return
        for kind in KINDS:
            yield from self._silent_of(kind, now_ms)
        if self._newest is not None:
            yield from self._without_status(self._newest, now_ms)

    def _without_status(self, newest: Seen, now_ms: int) -> Iterator[Silent]:
        detectors = [pulse for pulse in self._pulses.values() if pulse.heartbeat.kind == "detect"]
        living = [pulse.since_ms for pulse in detectors if not self._is_stale(pulse.heard_ms, now_ms)]
        if detectors and not living:
            return  # which is told already, by its name
        one = Silent("detect", newest.status.lane, newest.status.as_of_ms, alone=True)
        heard_ms = max(newest.heard_ms, self._started_ms, self._settled_ms, min(living, default=0))
        if one.story in self._told or self._is_stale(heard_ms, now_ms - self._patience_ms):
            yield one

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
        return now_ms - max(heard_ms, self._awake_ms) > self._after_ms


def slot_of(process_id: str) -> str:
    """A process id without its pid: a restarted process has the same."""
    return process_id.rpartition(":")[0] or process_id


def _is_predecessor(heartbeat: Heartbeat, heard_ms: int, before: Pulse) -> bool:
    """A late record of the process whose slot another one has now, and is heard in."""
    other = heartbeat.process_id != before.heartbeat.process_id
    return other and heartbeat.started_at_ms < before.heartbeat.started_at_ms and heard_ms - before.heard_ms < PAUSE_MS
