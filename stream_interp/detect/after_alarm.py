"""The post-alarm job: when the change of an incident was, and by what ratio its rates changed (`drift.after_alarm`).

`step` says at once what it can say; this re-reads `interp.windows` around the alarm and adds the rest by a transition
of its own, which no decision depends on. A job is a function of the log, and so is the id of what it says: a DETECT
that dies before or after it was told does it again and says it under the same id. An incident that has ended by then
is left as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from stream_interp.detect.partition import UNUSABLE
from stream_interp.detect.reread import Job, Rereading, Stream, Stretch, job_of, streams_of
from stream_interp.detect.state import LaneState
from stream_interp.drift.after_alarm import ALPHA, Counted, change_blocks, log_against, log_before, ratio_interval
from stream_interp.drift.esr import Floats
from stream_interp.records.alert import Alert, FeatureDrift, ScoreDrift, event_id
from stream_interp.records.consumed import Consumed

MAX_BLOCKS = 128
_READ_RECORDS = 100

log = logging.getLogger(__name__)


class Change(NamedTuple):
    """Where a change lies: requests of the lane since it was armed, and positions of the windows that hold them."""

    low_request: int
    high_request: int
    low_offset: int
    high_offset: int


class Ratio(NamedTuple):
    """Of the rate now over the baseline's; high None: without bound."""

    low: float
    high: float | None


@dataclass(frozen=True)
class Found:
    """What a job found, by the tests that its alert lists.

    Attributes:
        change: of the test with the most evidence.
    """

    change: Change | None = None
    changes: dict[tuple[object, ...], Change] = field(default_factory=dict)
    ratios: dict[tuple[object, ...], Ratio] = field(default_factory=dict)

    def on(self, alert: Alert) -> Alert:
        """A transition of the incident, with it."""
        features, by_effect = ([self._of(drift) for drift in drifts] for drifts in (alert.features, alert.by_effect))
        scores = [structs.replace(drift, **self._dates(drift)) for drift in alert.scores]
        told = structs.replace(alert, features=features, by_effect=by_effect, scores=scores)
        return structs.replace(told, **_named("change", self.change))

    def _of(self, drift: FeatureDrift) -> FeatureDrift:
        """Of those by effect, too, where they are among the features that the job looked at."""
        return structs.replace(drift, **self._dates(drift), **_named("ratio", self.ratios.get(_key(drift))))

    def _dates(self, drift: FeatureDrift | ScoreDrift) -> dict[str, Any]:
        found = _named("change", self.changes.get(_key(drift)))
        return {name: value for name, value in found.items() if name.endswith("request")}


def _named(prefix: str, found: Change | Ratio | None) -> dict[str, Any]:
    return {} if found is None else {f"{prefix}_{name}": value for name, value in found._asdict().items()}


def _key(drift: FeatureDrift | ScoreDrift) -> tuple[object, ...]:
    what = (drift.feature, drift.measure) if isinstance(drift, FeatureDrift) else (drift.score,)
    return (*what, drift.direction, drift.stratum)


def found_in(job: Job, stretch: Stretch) -> Generator[None, None, Found]:
    """What the windows say: a stream at a time, each some 10 ms, for DETECT has windows to judge meanwhile.

    Of a score it is the threshold with the most evidence, at a share of α as if it had been each of them.
    """
    features, of_scores = streams_of(job)
    changes, ratios = dict[tuple[object, ...], Change](), dict[tuple[object, ...], Ratio]()
    for drift, stream in zip(job.features, features, strict=True):
        blocks = _blocks(job, stretch, stream)
        if (change := blocks.change(ALPHA)) is not None:
            changes[_key(drift)] = change
        if (ratio := blocks.ratio()) is not None:
            ratios[_key(drift)] = ratio
        yield
    for score, streams in zip(job.scores, of_scores, strict=True):
        strongest = max((_blocks(job, stretch, stream) for stream in streams), key=lambda blocks: blocks.log_evidence)
        yield
        if (change := strongest.change(ALPHA / len(streams))) is not None:
            changes[_key(score)] = change
        yield
    drifts: list[FeatureDrift | ScoreDrift] = [*job.features, *job.scores]
    dated = [drift for drift in drifts if _key(drift) in changes]
    strongest_first = sorted(dated, key=lambda drift: drift.log_threshold - drift.log_e)
    return Found(changes[_key(strongest_first[0])] if dated else None, changes, ratios)


@dataclass(frozen=True)
class _Blocks:
    """A stream's counts in blocks, windows or runs of them.

    Attributes:
        first, last: [B] windows of the stretch that each block begins and ends with.
        to_alarm: blocks up to the alarm; a block ends there.
        false_alarm: at most the probability of an alarm before the change.
        early: the change may lie before the stretch, too.
    """

    stretch: Stretch
    stream: Stream
    counted: Counted
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    to_alarm: int
    false_alarm: float
    early: bool

    @property
    def log_evidence(self) -> float:
        """Of an up-test, against its null, at the alarm."""
        n, x = self.counted.to(self.to_alarm)
        return float(log_before(Counted(np.append(n, 0), np.append(x, 0)), self.stream.p)[-1])

    @cached_property
    def _against(self) -> Floats:
        own, s = self.counted.to(self.to_alarm), self.stream
        return log_against(own, s.baseline, s.p, s.direction)

    def kept(self, alpha: float) -> NDArray[np.bool_]:
        """The set; empty where the change may lie before the stretch.

        Before the stretch nothing was counted. A change there leaves its first block drifted, as one in its first block
        does: where that is kept, nothing is known.
        """
        kept = change_blocks(self._against, self.false_alarm, alpha)
        return np.zeros_like(kept) if self.early and kept[:1].any() else kept

    def change(self, alpha: float) -> Change | None:
        """From the first block of the set to its last."""
        kept, s = np.flatnonzero(self.kept(alpha)), self.stretch
        if not len(kept):
            return None
        low, high = self.first[kept[0]], self.last[kept[-1]]
        low_request = int(s.end[low] - s.requests[low]) + 1
        return Change(low_request, int(s.end[high]), int(s.offset[low]), int(s.offset[high]))

    def ratio(self) -> Ratio | None:
        """Of all windows of the stretch."""
        kept = self.kept(ALPHA / 3)
        if not kept.any():
            return None
        low, high = ratio_interval(self.counted, kept, self.stream.baseline)
        return Ratio(low, high if np.isfinite(high) else None)


def _blocks(job: Job, stretch: Stretch, stream: Stream) -> _Blocks:
    """At most MAX_BLOCKS, on a grid of the lane's requests, and one more at the alarm."""
    size = 1
    while (job.last_request - job.first_request) / size > MAX_BLOCKS:
        size *= 2
    alarm = int(np.searchsorted(stretch.end, stream.detected_request))
    later = np.arange(len(stretch.end)) > alarm
    first = np.flatnonzero(np.diff((stretch.end - 1) // size * 2 + later, prepend=-1))
    n, x = (np.add.reduceat(of[:, stream.column], first) for of in (stretch.n, stretch.x))
    weeks = job.alert.false_alarms_allowed / job.state.settings.drift.false_alarms_per_week
    begins = stretch.end[0] - stretch.requests[0]
    return _Blocks(
        stretch=stretch, stream=stream, counted=Counted(n, x), first=first,
        last=np.append(first[1:], len(stretch.end)) - 1, to_alarm=int((first <= alarm).sum()),
        false_alarm=weeks / stream.a_weeks, early=bool(begins > job.state.since_request),
    )  # fmt: skip


class Spans(Protocol):
    """Reads stretches of `interp.windows`."""

    def seek(self, partition: int, offset: int) -> None:
        """Where to read."""

    def poll(self, max_records: int) -> list[Consumed]:
        """What is there; it does not wait."""


class AfterAlarm:
    """The jobs of one DETECT, one at a time, a little at every turn.

    Args:
        spans: reads the log again.
    """

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._reading: Rereading | None = None
        self._finding: Generator[None, None, Found] | None = None
        self._done = dict[str, str]()  # lane → event_id of the transition that its last job followed
        self._found = dict[str, tuple[str, Found]]()  # lane → incident, what is known of it

    def work(self, lanes: Mapping[str, LaneState]) -> Alert | None:
        """A turn's share; the transition of a job that it ends. `lanes` are those whose past is replayed."""
        if self._reading is None:
            if (job := next(self._due(lanes.values()), None)) is not None:
                self._read(Rereading(job))
            return None
        if self._finding is None and self._reading.take(self._spans.poll(_READ_RECORDS)):
            self._read(self._reading)
        if (found := self._next_found(self._reading)) is None:
            return None
        job = self._reading.job
        self._give_up()
        return self._told(job, found, lanes.get(job.alert.lane.lane_id))

    def _next_found(self, reading: Rereading) -> Found | None:
        """One more stream; what was found, after the last."""
        try:
            if self._finding is None and (stretch := reading.stretch) is not None:
                self._finding = found_in(reading.job, stretch)
            if self._finding is not None:
                next(self._finding)
        except StopIteration as done:
            found: Found = done.value
            return found
        except UNUSABLE:  # windows that lie must not stop DETECT: then nothing is known
            log.warning("lane %s: nothing found after its alarm", reading.lane_id, exc_info=True)
            return Found()
        return None

    def _give_up(self) -> None:
        self._reading = self._finding = None

    def on_alert(self, alert: Alert) -> Alert:
        """A transition with what is known of its incident."""
        incident, found = self._found.get(alert.lane.lane_id, ("", Found()))
        return found.on(alert) if incident == alert.incident_id else alert

    def forget(self, lane_ids: Collection[str]) -> None:
        """Lanes that are another's now, or are built again: their jobs are done again."""
        for lane_id in lane_ids:
            self._done.pop(lane_id, None)
            self._found.pop(lane_id, None)
        if self._reading is not None and self._reading.lane_id in lane_ids:
            self._give_up()

    def _due(self, lanes: Iterable[LaneState]) -> Iterator[Job]:
        jobs = (job for state in lanes if (job := job_of(state)) is not None)
        return (job for job in jobs if self._done.get(job.alert.lane.lane_id) != job.alert.event_id)

    def _read(self, reading: Rereading) -> None:
        self._reading = reading
        self._spans.seek(reading.job.alert.position.partition, reading.start)

    def _told(self, job: Job, found: Found, state: LaneState | None) -> Alert | None:
        """None where the incident has ended or gone on meanwhile, or nothing was found."""
        alert = job.alert
        self._done[alert.lane.lane_id] = alert.event_id
        if state is None or state.stories.get(alert.incident_id) != alert or not (found.changes or found.ratios):
            return None
        self._found[alert.lane.lane_id] = alert.incident_id, found
        event = event_id(alert.lane, job.number, "after_alarm", alert.position)
        return structs.replace(found.on(alert), event_id=event, transition="updated", after_alarm=True)
