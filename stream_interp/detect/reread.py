"""The windows around an alarm, read again: what the post-alarm job counts in them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_interp.detect.alerts import incident_id
from stream_interp.detect.armed.features import RATES, counts, seen_in
from stream_interp.detect.armed.scores import SCORE_TESTS
from stream_interp.detect.partition import UNUSABLE
from stream_interp.detect.state import LaneState
from stream_interp.drift import exceedance
from stream_interp.drift.after_alarm import Counted
from stream_interp.drift.esr import Direction
from stream_interp.records import window
from stream_interp.records.alert import Alert, FeatureDrift, ScoreDrift
from stream_interp.records.chunks import Joiner
from stream_interp.records.consumed import Consumed
from stream_interp.records.envelope import header_map
from stream_interp.records.window import UNIT, Window, decode_window, scores_of

MARGIN_REQUESTS = 1_000  # before the estimate of the change, beside as many as there are behind it
LATER_REQUESTS = (64, 1_000)  # after the alarm as many as from the estimate to it, within these bounds
_FIRST_SPAN, _WIDER, _LAST_SPAN = 500, 8, 256_000  # records before the alarm: at first, by what factor, and at most


@dataclass(frozen=True)
class Job:
    """What is to be found out after a transition of an incident. A function of the log: done again, it finds the same.

    Attributes:
        state: of the lane, once `last_request` has come.
        number: of the incident.
        alert: the transition, as `step` told it.
        first_request, last_request: the range, in requests of the lane since it was armed.
    """

    state: LaneState
    number: int
    alert: Alert
    first_request: int
    last_request: int

    @property
    def features(self) -> list[FeatureDrift]:
        """Those it can say something of: rates of the unit, where no season moves them."""
        assert self.state.tests is not None
        if self.state.tests.season is not None:
            return []
        return [drift for drift in self.alert.features if drift.measure == "rate" and drift.stratum == UNIT]

    @property
    def scores(self) -> list[ScoreDrift]:
        """As `features`."""
        return [drift for drift in self.alert.scores if drift.stratum == UNIT]


def job_of(state: LaneState) -> Job | None:
    """What there is to do for the last transition of the open incident; None while requests it needs have not come."""
    if state.incident is None or state.phase != "armed":
        return None
    alert = state.stories.get(incident_id(state.lane, state.incident.number))
    if alert is None:
        return None
    began = min([alert.change_estimate_request, *(drift.change_request for drift in alert.features)])
    back = max(0, alert.request - began)
    least, most = LATER_REQUESTS
    job = Job(
        state=state, number=state.incident.number, alert=alert,
        first_request=max(state.since_request, began - back - MARGIN_REQUESTS),
        last_request=alert.request + min(max(back, least), most),
    )  # fmt: skip
    return job if state.requests >= job.last_request else None


class Seen(NamedTuple):
    """One window as the job sees it: n and x of its streams, [S] int64, in the order of `Streams`."""

    offset: int
    requests: int
    counted: Counted


@dataclass(frozen=True)
class Streams:
    """What is counted in each window: the job's features by their rates, then of its scores every threshold."""

    features: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, job: Job) -> Streams:
        """Those of a job."""
        names = [(test.score, test.direction) for test in SCORE_TESTS]
        rows = [names.index((drift.score, drift.direction)) for drift in job.scores]
        return cls(np.array([drift.feature for drift in job.features], np.int64), np.array(rows, np.int64))

    def seen(self, state: LaneState, found: Window, offset: int) -> Seen:
        """A window's counts."""
        assert state.tests is not None
        unit = state.tests.unit
        n, x = counts(RATES[0], seen_in(found.header.requests, found.arrays), self.features)
        scores = scores_of(found)
        over = exceedance.exceeds(unit.scores, scores).sum(axis=0)[self.rows]
        known = (~np.isnan(scores[:, unit.scores.column[self.rows]])).sum(axis=0)
        of_features = np.broadcast_to(n, x.shape)
        of_scores = np.repeat(known, over.shape[1])
        counted = Counted(
            np.concatenate([of_features, of_scores]).astype(np.int64),
            np.concatenate([x, over.ravel()]).astype(np.int64),
        )
        return Seen(offset, found.header.requests, counted)


class Stretch(NamedTuple):
    """The windows of a job's range, in log order.

    Attributes:
        offset: [W] position of each window.
        end: [W] the lane's request, since it was armed, that each ends with.
        requests: [W] in each.
        n, x: [W, S].
        whole: it begins where the job wants it to, not where reading was given up.
    """

    offset: NDArray[np.int64]
    end: NDArray[np.int64]
    requests: NDArray[np.int64]
    n: NDArray[np.int64]
    x: NDArray[np.int64]
    whole: bool


class Rereading:
    """A job's way through the log: backwards in wider and wider steps, until the range is whole.

    Offsets count all lanes of a partition and the requests of a window are not known beforehand, so that the range's
    first offset has to be searched for.
    """

    def __init__(self, job: Job) -> None:
        self.job, self._streams, self._span = job, Streams.of(job), _FIRST_SPAN
        self._begin()

    @property
    def lane_id(self) -> str:
        """Whose windows are read."""
        return self.job.state.lane.lane_id

    def _begin(self) -> None:
        low = self.job.state.since_offset + 1
        self.start = max(low, self.job.alert.position.offset - self._span)
        self._from_first = self.start == low
        self._joiner, self._found = Joiner(), list[Seen]()
        self._later, self._done = 0, False

    def take(self, records: Iterable[Consumed]) -> bool:
        """The next records from `start` on. True: reading must begin anew at `start`, which lies further back."""
        key = self.lane_id.encode()
        for record in records:
            if not self._done and record.key == key and (seen := self._seen(record)) is not None:
                self._add(seen)
            self._done |= record.offset >= self.job.state.position.offset  # beyond it the log may not have come yet
        if not self._done or self._whole() or self._span >= _LAST_SPAN:
            return False
        self._span *= _WIDER
        self._begin()
        return True

    @property
    def stretch(self) -> Stretch | None:
        """The range, once all of it has been read."""
        if not self._done:
            return None
        requests = np.array([seen.requests for seen in self._found])
        upto = sum(seen.requests for seen in self._found if seen.offset <= self.job.alert.position.offset)
        end = self.job.alert.request - upto + np.cumsum(requests)
        inside = end > self.job.first_request
        offset, n, x = (np.array(of) for of in zip(
            *((seen.offset, *seen.counted) for seen in self._found), strict=True
        ))  # fmt: skip
        return Stretch(offset[inside], end[inside], requests[inside], n[inside], x[inside], self._whole())

    def _whole(self) -> bool:
        before = sum(seen.requests for seen in self._found if seen.offset <= self.job.alert.position.offset)
        return self._from_first or before >= self.job.alert.request - self.job.first_request

    def _add(self, seen: Seen) -> None:
        self._found.append(seen)
        if seen.offset > self.job.alert.position.offset:
            self._later += seen.requests
        self._done = self._later >= self.job.last_request - self.job.alert.request

    def _seen(self, record: Consumed) -> Seen | None:
        """The window that this record completes, if `step` ticked with it."""
        state = self.job.state
        try:
            headers = header_map(record.headers)
            if headers.get("ce_type") != window.CE_TYPE:
                return None
            name, chunk, chunks = headers["ce_window"], int(headers["ce_chunk"]), int(headers["ce_chunks"])
            if chunk and name not in self._joiner.incomplete():
                return None  # it begins before the range
            whole = self._joiner.add(name, chunk, chunks, record.value or b"", record.offset)
            found = decode_window(whole) if whole is not None else None
            if found is None or not _was_ticked(state, found):
                return None
            return self._streams.seen(state, found, record.offset)
        except UNUSABLE:  # as `step` did
            return None


def _was_ticked(state: LaneState, found: Window) -> bool:
    assert state.baseline is not None
    header = found.header
    is_for = header.projector_version == state.baseline.header.projector_version
    return is_for and header.compute_dtype == state.compute_dtype


class Stream(NamedTuple):
    """One column of a stretch, and the null of its test."""

    column: int
    p: float
    direction: Direction
    baseline: Counted
    detected_request: int
    a_weeks: float


def streams_of(job: Job) -> tuple[list[Stream], list[Sequence[Stream]]]:
    """Of each feature its stream, of each score those of its usable thresholds."""
    tests = job.state.tests
    assert tests is not None
    unit, features, of_scores = tests.unit, list[Stream](), list[Sequence[Stream]]()
    for column, drift in enumerate(job.features):
        direction: Direction = "down" if drift.direction == "down" else "up"
        p = float(unit.features[f"rate {direction}"].p[drift.feature])
        baseline = Counted(np.array(unit.requests), unit.fired[drift.feature])
        a_weeks = float(np.exp(min(drift.log_e, drift.log_threshold)))  # e-d-BH names features below A, too
        features.append(Stream(column, p, direction, baseline, drift.detected_request, a_weeks))
    rows, ranks = Streams.of(job).rows, len(exceedance.RANKS)
    for i, (row, score) in enumerate(zip(rows, job.scores, strict=True)):
        of_scores.append([
            Stream(
                len(features) + i * ranks + r, float(unit.scores.null_rates[row, r]), "up",
                Counted(np.array(unit.requests), np.array(k)), score.detected_request,
                float(np.exp(score.log_threshold)),
            )
            for r, k in enumerate(exceedance.RANKS) if unit.scores.usable[row, r]
        ])  # fmt: skip
    return features, of_scores
