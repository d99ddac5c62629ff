"""The post-alarm job: it reads what it needs, says the same whenever it is done, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from stream_interp.detect import after_alarm, reread
from stream_interp.detect.after_alarm import AfterAlarm
from stream_interp.detect.armed.season import Season
from stream_interp.detect.partition import Told, WindowsPartition
from stream_interp.detect.reread import Job, Rereading, job_of
from stream_interp.detect.state_codec import dump_state
from stream_interp.records.alert import Alert, FeatureDrift
from stream_interp.records.consumed import Consumed
from stream_interp.records.lane import Lane
from tests.detect.lanes import LANE, Driver, requests
from tests.detect.log import consumed, fresh, ids, replayed, window_records

CALM, WINDOW = 400, 8


class LogSpans:
    """A log in memory; hands out a few records at a time."""

    def __init__(self, log: list[Consumed]) -> None:
        self.log, self.at = log, 0

    def seek(self, partition: int, offset: int) -> None:
        assert partition == 0
        self.at = offset

    def poll(self, max_records: int) -> list[Consumed]:
        records = [record for record in self.log if record.offset >= self.at][: min(7, max_records)]
        self.at = records[-1].offset + 1 if records else self.at
        return records


@pytest.fixture(scope="module")
def drifted() -> Driver:
    """A lane that is calm, then drifts and stays so."""
    driver, rng = Driver(), np.random.default_rng(1)
    driver.learn(rng)
    driver.feed(requests(rng, CALM), WINDOW)
    driver.feed(requests(rng, 400, shift=0.7), WINDOW)
    return driver


def log_of(driver: Driver, chunk_bytes: int = 900_000) -> list[Consumed]:
    return consumed(window_records(driver.windows, chunk_bytes))


def told_live(log: list[Consumed], restarts: set[int] = frozenset()) -> tuple[WindowsPartition, list[Alert]]:
    """As a DETECT goes along: what the jobs told; after some records it has forgotten everything that it found."""
    partition, jobs, alerts = fresh(), AfterAlarm(LogSpans(log)), list[Alert]()
    for k, record in enumerate(log):
        partition.take(record, lambda _: None, Told())
        if k in restarts:
            jobs.forget([LANE.lane_id])
        alerts += [alert for _ in range(3) if (alert := jobs.work(partition.lanes)) is not None]
    return partition, alerts


def told_late(log: list[Consumed]) -> list[Alert]:
    """As a DETECT that was restored with all of the log behind it."""
    partition, _ = replayed(log)
    return list(worked(AfterAlarm(LogSpans(log)), partition))


def worked(jobs: AfterAlarm, partition: WindowsPartition) -> Iterator[Alert]:
    for _ in range(2_000):
        if (alert := jobs.work(partition.lanes)) is not None:
            yield alert


def job_in(driver: Driver, log: list[Consumed]) -> Job:
    partition, _ = replayed(log)
    job = job_of(partition.lanes[LANE.lane_id])
    assert job is not None
    return job


def test_the_change_and_the_ratios_are_told_after_the_alarm(drifted: Driver) -> None:
    log = log_of(drifted)
    _, alerts = told_live(log)
    job, last = job_in(drifted, log), alerts[-1]
    assert last.event_id not in ids(a for result in drifted.results for a in result.alerts)
    assert (last.transition, last.after_alarm, last.incident_id) == ("updated", True, job.alert.incident_id)
    assert last.change_low_request is not None
    assert last.change_low_request <= CALM + 1 <= last.change_high_request
    assert last.change_high_request - last.change_low_request < 200
    (low,), (high,) = ([r for r in log if r.offset == at] for at in (last.change_low_offset, last.change_high_offset))
    assert low.offset <= log[(600 + CALM) // WINDOW].offset <= high.offset
    dated = [drift for drift in last.features if drift.ratio_low is not None]
    assert len(dated) >= 5
    for drift in dated:
        assert drift.change_low_request <= CALM + 1 <= drift.change_high_request
        assert drift.ratio_low > 1 if drift.direction != "down" else drift.ratio_high < 1
        assert drift.ratio_high is None or drift.ratio_low < drift.rate_now / drift.rate_baseline < drift.ratio_high
    assert any(score.change_low_request is not None for score in last.scores)


def test_done_again_it_says_the_same_and_decisions_do_not_know_it(drifted: Driver) -> None:
    log = log_of(drifted)
    partition, alerts = told_live(log)
    assert ids(alerts) == sorted(set(ids(alerts)), key=ids(alerts).index)
    assert told_late(log) == [alerts[-1]]
    _, again = told_live(log, restarts={len(log) - 5, len(log) - 20})
    assert {a.event_id: a for a in again} == {a.event_id: a for a in alerts}
    assert dump_state(partition.lanes[LANE.lane_id]) == dump_state(replayed(log)[0].lanes[LANE.lane_id])
    (chunked,) = told_late(log_of(drifted, chunk_bytes=4_000))
    assert [intervals(drift) for drift in chunked.features] == [intervals(drift) for drift in alerts[-1].features]


def intervals(drift: FeatureDrift) -> tuple:
    return drift.ratio_low, drift.ratio_high, drift.change_low_request, drift.change_high_request


def test_it_reads_back_as_far_as_it_must_and_no_further(drifted: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(drifted)
    other = Lane(model_id="m", hook_name="other", sae_fingerprint="toy").lane_id.encode()
    mixed = [r._replace(offset=3 * k + j, key=r.key if j == 1 else other) for k, r in enumerate(log) for j in range(3)]
    monkeypatch.setattr(reread, "_FIRST_SPAN", 5)
    monkeypatch.setattr(reread, "_WIDER", 2)
    monkeypatch.setattr(reread, "MARGIN_REQUESTS", 40)
    job = job_in(drifted, [r for r in mixed if r.key != other])
    assert 0 < job.first_request < job.alert.request
    spans, reading = LogSpans(mixed), Rereading(job)
    spans.seek(0, reading.start)
    while reading.stretch is None:
        if reading.take(spans.poll(50)):
            spans.seek(0, reading.start)
    stretch = reading.stretch
    assert stretch.whole
    assert reading.start > job.state.since_offset + 1
    slow = slow_stretch(drifted, job)
    assert stretch.end.tolist() == [end for end, _, _ in slow]
    assert stretch.n.tolist() == [n for _, n, _ in slow]
    assert stretch.x.tolist() == [x for _, _, x in slow]


def slow_stretch(driver: Driver, job: Job) -> list[tuple[int, list[int], list[int]]]:
    """End, n and x of every window in the range, from the windows themselves."""
    found, end, unit = [], 0, job.state.tests.unit
    for window in driver.windows:
        if window.header.projector_version != job.state.baseline.header.projector_version:
            continue
        if window.header.closed_at_ms <= driver.state.closed_at_ms - (CALM + 400) * 1_000:
            continue  # still learning
        end += window.header.requests
        fired = dict(zip(window.arrays["feature_ids"].tolist(), window.arrays["requests_fired"].tolist(), strict=True))
        n, x = [], []
        for drift in job.features:
            n.append(window.header.requests)
            x.append(fired.get(drift.feature, 0))
        for row in reread.Streams.of(job).rows:
            signed = window.arrays["request_scores"][:, unit.scores.column[row]].astype(float) * unit.scores.sign[row]
            n += [int((~np.isnan(signed)).sum())] * len(unit.scores.thresholds[row])
            x += [int((signed > threshold).sum()) for threshold in unit.scores.thresholds[row]]
        if end > job.first_request:
            found.append((end, n, x))
        if end >= job.last_request:
            return found
    raise AssertionError("the range does not end")


def test_an_incident_that_ended_is_left_and_the_next_looks_back_to_its_own_beginning() -> None:
    driver, rng = Driver(), np.random.default_rng(3)
    driver.learn(rng)
    driver.feed(requests(rng, 80), WINDOW)
    driver.feed(requests(rng, 64, shift=1.5), WINDOW)
    while driver.state.incident is not None:
        driver.feed(requests(rng, WINDOW), WINDOW)
    ended = driver.state
    assert ended.incidents == 1
    assert told_late(log_of(driver)) == []
    assert ended.since_request == ended.requests > 144
    driver.feed(requests(rng, 40), WINDOW)
    driver.feed(requests(rng, 200, shift=1.5), WINDOW)
    log = log_of(driver)
    assert job_in(driver, log).first_request == ended.since_request
    _, alerts = told_live(log)
    change = ended.since_request + 40 + 1
    assert alerts[-1].change_low_request <= change <= alerts[-1].change_high_request
    assert alerts[-1].change_low_request > ended.since_request


def test_without_an_sae_or_in_a_season_the_scores_alone_are_dated(drifted: Driver) -> None:
    driver, rng = Driver(sae=None), np.random.default_rng(4)
    driver.learn(rng)
    driver.feed(requests(rng, 80), WINDOW)
    driver.feed(requests(rng, 120, shift=1.5), WINDOW)
    (found,) = told_late(log_of(driver))
    assert found.features == []
    assert found.change_low_request <= 81 <= found.change_high_request
    job = job_in(drifted, log_of(drifted))
    hours = np.ones(168)
    tests = replace(job.state.tests, season=Season(hours, hours))
    assert job.features != []
    assert replace(job, state=replace(job.state, tests=tests)).features == []


def test_windows_that_lie_or_are_gone_stop_nothing(drifted: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(drifted)
    partition, _ = replayed(log)
    gone = [record for record in log if record.offset in (0, log[-1].offset)]
    assert list(worked(AfterAlarm(LogSpans(gone)), partition)) == []
    torn = [r._replace(value=(r.value or b"")[:50]) if r.offset % 9 == 0 else r for r in log]
    assert len(list(worked(AfterAlarm(LogSpans(torn)), partition))) <= 1

    def lie(*_: object) -> None:
        raise OverflowError

    jobs = AfterAlarm(LogSpans(log))
    monkeypatch.setattr(after_alarm, "found_in", lie)
    assert list(worked(jobs, partition)) == []
    monkeypatch.undo()
    assert list(worked(jobs, partition)) == []  # it is not tried for ever


def test_nothing_is_said_before_enough_has_come_after_the_alarm(drifted: Driver) -> None:
    opened = next(k for k, r in enumerate(drifted.results) if any(a.transition == "opened" for a in r.alerts))
    log = log_of(drifted)
    assert told_late(log[: opened + 1]) == []
    later = -(-reread.LATER_REQUESTS[0] // WINDOW)
    assert told_late(log[: opened + later]) == []
