"""What operators can ask of a lane, and what DETECT remembers that they said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from stream_interp.detect.alerts import incident_id, lane_alert
from stream_interp.detect.labels import SiteLabels
from stream_interp.detect.markers import LaneWatch
from stream_interp.detect.operators import Operators
from stream_interp.detect.orders import apply_baseline, relearn, resolve, shape_version, stories_after
from stream_interp.detect.outgoing import ALERT_STATE, Outgoing, records_of
from stream_interp.detect.state_codec import dump_state, load_state
from stream_interp.detect.step import step
from stream_interp.detect.view import status_of
from stream_interp.encode.lanes import Lanes, Site
from stream_interp.encode.requests import shape_of
from stream_interp.errors import IntegrityError
from stream_interp.records.alert import AlertState, Position
from stream_interp.records.annotation import MAX_SILENCE_MS
from stream_interp.records.consumed import Consumed
from stream_interp.records.control import (
    Marker,
    Order,
    OrderKind,
    Versioned,
    encode_control,
    make_control,
    make_order,
    read_order,
    read_projector,
)
from stream_interp.records.envelope import read_json
from stream_interp.settings import DriftSettings, Settings, SiteSettings, UnitSettings
from tests.detect.lanes import LANE, SAE, Driver, requests
from tests.detect.log import consumed, ids, marker_record, replayed, window_records

NO_LABELS = SiteLabels([], {})
DAY_MS = 24 * 3600 * 1000


@pytest.fixture(scope="module")
def critical() -> Driver:
    """A lane with an open incident."""
    driver, rng = Driver(), np.random.default_rng(1)
    driver.learn(rng)
    assert driver.feed(requests(rng, 80, shift=1.5))[0] == "opened"
    return driver


def next_position(driver: Driver) -> Position:
    return Position(partition=0, offset=driver.state.position.offset + 1)


def marker(driver: Driver, kind: str = "resolve", version: int = 0, incident: str | None = None) -> Marker:
    assert driver.state.incident is not None
    own = incident_id(LANE, driver.state.incident.number)
    version = version or driver.state.closed_at_ms + 1
    return Marker(kind=kind, lane=LANE, version=version, incident_id=own if incident is None else incident,
                  author="ann", reason="wanted shift")  # type: ignore[arg-type]  # fmt: skip


def test_resolve_ends_the_open_incident_and_its_evidence(critical: Driver) -> None:
    result = resolve(critical.state, marker(critical), next_position(critical))
    (alert,) = result.alerts
    assert (alert.transition, alert.status, alert.note) == (
        "resolved",
        "ok",
        "resolved by ann (as claimed): wanted shift",
    )
    assert alert.at_ms == marker(critical).version  # when it was asked for
    assert result.state.incident is None
    assert result.state.evidence is not None
    assert not any(of.m.any() for of in result.state.evidence.unit.features.values())
    assert result.state.phase == "armed"
    again = resolve(result.state, marker(critical), Position(partition=0, offset=10**6))
    assert again.alerts == ()


def test_resolve_of_another_incident_is_void(critical: Driver) -> None:
    result = resolve(critical.state, marker(critical, incident="0" * 16), next_position(critical))
    assert result.alerts == ()
    assert result.state.incident == critical.state.incident


def test_a_drift_that_goes_on_after_resolve_opens_a_new_incident(critical: Driver) -> None:
    driver = Driver()
    driver.state = resolve(critical.state, marker(critical), next_position(critical)).state
    driver.shape, driver.offset = critical.shape, critical.offset + 1
    assert driver.feed(requests(np.random.default_rng(5), 80, shift=1.5))[0] == "opened"
    assert driver.state.incident is not None
    assert driver.state.incident.number == 2


def test_relearn_accepts_a_wanted_shift(critical: Driver) -> None:
    result = relearn(critical.state, marker(critical, "relearn"), next_position(critical))
    assert [a.transition for a in result.alerts] == ["resolved"]
    assert "relearn by ann" in result.alerts[0].note
    assert status_of(result.state, 0, 0).state == "learning"
    driver, rng = Driver(), np.random.default_rng(7)
    driver.state, driver.shape, driver.offset = result.state, critical.shape, critical.offset + 1
    driver.feed(requests(rng, 40, shift=1.5))  # ENCODE has not let go of the old projector yet
    assert driver.state.counted == critical.state.counted
    driver.shape = shape_of(LANE, None)
    driver.feed(requests(rng, 120, shift=1.5))
    driver.feed(requests(rng, 480, shift=1.5))
    assert driver.state.phase == "armed"
    assert driver.state.baseline is not None
    assert driver.state.projector is not None
    assert driver.state.baseline.header.version >= driver.state.projector.version > driver.state.relearned
    assert driver.feed(requests(rng, 80, shift=1.5)) == []  # the shift is what is normal now
    assert driver.feed(requests(rng, 80))[0] == "opened"


def test_a_lane_whose_windows_are_made_for_another_projector_is_blind_and_says_so(critical: Driver) -> None:
    driver, rng = Driver(), np.random.default_rng(7)
    driver.state = relearn(critical.state, marker(critical, "relearn"), next_position(critical)).state
    driver.shape, driver.offset = critical.shape, critical.offset + 1
    assert driver.feed(requests(rng, 40)) == []
    assert status_of(driver.state, 0, 0).state == "learning"
    assert driver.feed(requests(rng, 40)) == ["blind"]
    (blind,) = (alert for result in driver.results for alert in result.alerts)
    status = status_of(driver.state, 0, 0)
    assert (status.state, "for another projector" in status.reason) == ("blind", True)
    driver.shape = shape_of(LANE, None)
    assert driver.feed(requests(rng, 8)) == ["seeing"]
    (seeing,) = driver.results[-1].alerts
    assert (seeing.incident_id, seeing.runbook) == (blind.incident_id, "other_projector.md")
    assert status_of(driver.state, 0, 0).state == "learning"


def test_versions_after_relearn_rise_even_where_the_traffic_clock_is_behind(critical: Driver) -> None:
    order = marker(critical, "relearn", version=critical.state.closed_at_ms + 10 * DAY_MS)
    driver, rng = Driver(), np.random.default_rng(8)
    driver.state = relearn(critical.state, order, next_position(critical)).state
    driver.offset = critical.offset + 1
    driver.learn(rng)
    assert driver.state.baseline is not None
    assert driver.state.baseline.header.version > order.version
    lanes = Lanes([Site(SiteSettings(), SAE)])
    lanes.forget(LANE.lane_id, order.version)
    made = [c for r in driver.results for c in r.controls if c.manifest.kind == "projector"]
    assert not lanes.outdated(read_projector(made[0])[0])


def test_an_older_order_or_baseline_than_what_is_in_effect_is_void(critical: Driver) -> None:
    held = critical.state.baseline
    assert held is not None
    shape = held.header.projector_version
    old = relearn(critical.state, marker(critical, "relearn", version=shape), next_position(critical))
    assert (old.alerts, old.state.phase) == ((), "armed")
    learning = relearn(critical.state, marker(critical, "relearn"), next_position(critical)).state
    assert shape_version(learning) == learning.relearned > shape
    record = make_control("baseline", held.header, held.arrays, "ann", "")
    assert apply_baseline(learning, record, DriftSettings(), Position(partition=0, offset=10**6)).state.phase == "fit"


def test_a_refused_lane_says_so_and_ends_it_by_relearning() -> None:
    driver, rng = Driver(), np.random.default_rng(3)
    driver.feed(requests(rng, 120))
    said = driver.feed(requests(rng, 240)) + driver.feed(requests(rng, 240, shift=4.0))
    assert (driver.state.phase, said) == ("refused", ["integrity_error"])
    order = Marker(kind="relearn", lane=LANE, version=driver.state.closed_at_ms + 1, author="ann", reason="clean data")
    result = relearn(driver.state, order, next_position(driver))
    assert [(a.transition, a.cause_hint) for a in result.alerts] == [("integrity_restored", "not_stationary")]
    assert result.state.phase == "fit"


def test_relearn_takes_the_settings_of_now(critical: Driver) -> None:
    order = structs.replace(
        marker(critical, "relearn"), drift=DriftSettings(false_alarms_per_week=5.0), baseline_requests=99
    )
    settings = relearn(critical.state, order, next_position(critical)).state.settings
    assert (settings.drift.false_alarms_per_week, settings.baseline_requests) == (5.0, 99)


def test_orders_in_the_log_replay_to_the_same_alerts(critical: Driver) -> None:
    log = [*window_records(critical.windows), marker_record(marker(critical)), marker_record(marker(critical))]
    partition, told = replayed(consumed(log))
    assert [a.transition for a in told.alerts][-1] == "resolved"
    assert ids(told.alerts) == ids(replayed(consumed(log))[1].alerts)
    state = partition.lanes[LANE.lane_id]
    assert state.stories == {}
    assert load_state(dump_state(state)).relearned == state.relearned


def test_stories_hold_the_last_alert_of_what_is_open(critical: Driver) -> None:
    partition, told = replayed(consumed(window_records(critical.windows)))
    state = partition.lanes[LANE.lane_id]
    assert list(state.stories.values()) == [told.alerts[-1]]
    assert load_state(dump_state(state)).stories == state.stories
    blind = lane_alert(state, "blind", "critical", 1, "no_windows")
    seeing = lane_alert(state, "seeing", "info", 2, "no_windows")
    assert blind.incident_id == seeing.incident_id
    both = stories_after(state.stories, (blind,))
    assert {a.transition for a in both.values()} == {"blind", told.alerts[-1].transition}
    assert stories_after(both, (seeing,)) == state.stories


def control(record: Versioned, start: int = 0) -> list[Consumed]:
    return [
        Consumed("interp.control", 0, start + k, 0, e.key, list(e.headers), e.value)
        for k, e in enumerate(encode_control(record))
    ]


def said(kind: OrderKind, version: int, incident: str = "", until_ms: int = 0, reason: str = "known") -> Versioned:
    return make_order(
        Order(kind=kind, lane=LANE, version=version, incident_id=incident, until_ms=until_ms), "ann", reason
    )


def heard(*records: Versioned) -> Operators:
    operators, offset = Operators(), 0
    for record in records:
        for one in control(record, offset):
            operators.add(one)
        offset = operators.next_offset
    return operators


def test_acks_and_silences_are_annotations_in_log_order() -> None:
    operators = heard(said("ack", 5, "i"), said("silence", 6, until_ms=60), said("unsilence", 7))
    assert [a.kind for a in operators.annotations_from(0)] == ["ack", "silence", "unsilence"]
    assert [a.kind for a in operators.annotations_from(2)] == ["silence", "unsilence"]
    assert operators.annotations_from(operators.next_offset) == []
    twice = heard(said("ack", 5, "i"))
    assert [a.event_id for a in twice.annotations_from(0)] == [operators.annotations_from(0)[0].event_id]


def test_a_silence_ends_by_itself_and_after_seven_days_at_most() -> None:
    operators = heard(said("silence", 1_000, until_ms=1_000 + 30 * DAY_MS))
    silence = operators.silence_of(LANE.lane_id, 2_000)
    assert silence is not None
    assert silence.until_ms == 1_000 + MAX_SILENCE_MS
    assert operators.silence_of(LANE.lane_id, silence.until_ms) is None
    assert heard(said("silence", 1, until_ms=9), said("unsilence", 2)).silence_of(LANE.lane_id, 3) is None


def logged(record: Versioned, at_ms: int, operators: Operators | None = None) -> Operators:
    operators = operators or Operators()
    for one in control(record, operators.next_offset):
        operators.add(one._replace(timestamp_ms=at_ms))
    return operators


def test_what_was_said_when_is_told_by_the_logs_clock_and_not_by_an_operators(critical: Driver) -> None:
    now_ms, hour_ms = 1_800_000_000_000, 3_600_000
    blind = lane_alert(critical.state, "blind", "critical", now_ms, "no_windows")
    ack = logged(said("ack", now_ms - hour_ms, blind.incident_id), now_ms + 5_000).ack_of(blind)
    assert ack is not None  # of someone whose clock is an hour behind
    assert ack.at_ms == now_ms + 5_000
    early = logged(said("ack", now_ms + hour_ms, blind.incident_id), now_ms - 5_000)
    assert early.ack_of(blind) is None  # of the blindness before, by someone whose clock is ahead
    silence = logged(said("silence", now_ms + 23 * hour_ms, until_ms=now_ms + 30 * DAY_MS), now_ms)
    found = silence.silence_of(LANE.lane_id, now_ms + 1)
    assert found is not None
    assert found.until_ms == now_ms + MAX_SILENCE_MS
    assert [a.at_ms for a in silence.annotations_from(0)] == [now_ms]


def test_a_shorter_silence_does_not_end_a_longer_one() -> None:
    """NOTIFY goes by every silence, until one order ends them."""
    operators = heard(said("silence", 1, until_ms=100), said("silence", 2, until_ms=50))
    assert operators.silence_of(LANE.lane_id, 60) is not None
    assert (
        heard(said("silence", 1, until_ms=100), said("silence", 2, until_ms=50), said("unsilence", 3)).silence_of(
            LANE.lane_id, 10
        )
        is None
    )


def test_a_silence_covers_blindness_for_a_day_only(critical: Driver) -> None:
    blind = lane_alert(critical.state, "blind", "critical", 1_000, "no_windows")
    operators = heard(said("silence", 1_000, until_ms=1_000 + 3 * DAY_MS))
    covers = operators.silence_on(blind, DAY_MS)
    assert covers is not None
    assert covers.until_ms == 1_000 + DAY_MS
    assert operators.silence_on(blind, 2_000 + DAY_MS) is None
    assert operators.silence_of(LANE.lane_id, 2_000 + DAY_MS) is not None


def test_a_lane_that_goes_blind_again_is_not_acknowledged(critical: Driver) -> None:
    blind = lane_alert(critical.state, "blind", "critical", 1_000, "no_windows")
    operators = heard(said("ack", 1_500, blind.incident_id))
    assert operators.ack_of(blind) is not None
    assert operators.ack_of(structs.replace(blind, at_ms=2_000)) is None


def test_an_order_that_is_not_what_its_manifest_says_is_refused() -> None:
    record = said("ack", 5, "i")
    other = make_order(Order(kind="relearn", lane=LANE, version=5), "eve", "")
    manifest = structs.replace(record.manifest, sha256=other.manifest.sha256, bytes=len(other.body))
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        heard(Versioned(manifest, other.body))


def test_encode_and_detect_both_refuse_an_order_that_is_not_what_its_manifest_says() -> None:
    record = said("relearn", 5)
    moved = structs.replace(record.manifest, version=6)
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        read_order(Versioned(moved, record.body))


def test_an_order_counts_whatever_its_author_is_called() -> None:
    """ENCODE carries it out too, and asks for no author."""
    order = make_order(Order(kind="relearn", lane=LANE, version=5), "detect", "an author may claim any name")
    assert [manifest.version for manifest, _ in heard(order).step_orders()] == [5]


def test_order_markers_are_written_once_and_only_where_they_do_something(critical: Driver) -> None:
    assert critical.state.incident is not None
    own = incident_id(LANE, critical.state.incident.number)
    watch, settings = LaneWatch(0), Settings(unit=UnitSettings(tokens=9, blocks=2))
    ((manifest, order),) = heard(said("resolve", 5, "other")).step_orders()
    assert watch.order_marker(critical.state, manifest, order, settings) is None
    ((manifest, order),) = heard(said("resolve", 5, own)).step_orders()
    found = watch.order_marker(critical.state, manifest, order, settings)
    assert found is not None
    assert (found.kind, found.incident_id, found.author, found.reason) == ("resolve", own, "ann", "known")
    assert watch.order_marker(critical.state, manifest, order, settings) is None
    ((manifest, order),) = heard(said("relearn", critical.state.closed_at_ms + 1)).step_orders()
    found = watch.order_marker(critical.state, manifest, order, settings)
    assert found is not None
    assert (found.kind, found.baseline_requests) == ("relearn", settings.baseline.requests)
    assert found.unit == settings.unit == UnitSettings(tokens=9, blocks=2)
    assert watch.order_marker(critical.state, manifest, order, settings) is None
    after = relearn(critical.state, found, next_position(critical)).state
    assert LaneWatch(0).order_marker(after, manifest, order, settings) is None  # after a restart too


def test_after_relearn_an_operators_older_baseline_gets_no_marker(critical: Driver) -> None:
    held = critical.state.baseline
    assert held is not None
    record = make_control("baseline", held.header, held.arrays, "ann", "")
    after = relearn(critical.state, marker(critical, "relearn"), next_position(critical)).state
    assert LaneWatch(0).baseline_marker(after, record, DriftSettings()) is None


def test_alert_state_carries_ack_and_silence(critical: Driver) -> None:
    partition, _ = replayed(consumed(window_records(critical.windows)))
    state = partition.lanes[LANE.lane_id]
    (story,) = state.stories.values()
    operators = heard(said("ack", 5, story.incident_id), said("silence", 6, until_ms=DAY_MS))
    out = Outgoing(annotations=operators.annotations_from(0), annotated=[state])
    records = list(records_of(out, operators, NO_LABELS.on_alert, now_ms=10))
    (written,) = [read_json(e.value, AlertState) for topic, e, _ in records if topic == ALERT_STATE]
    assert (written.incident_id, written.event_id) == (story.incident_id, story.event_id)
    assert written.ack is not None
    assert (written.ack.author, written.ack.reason) == ("ann", "known")
    assert written.silence is not None
    (late,) = [
        read_json(e.value, AlertState)
        for t, e, _ in records_of(out, operators, NO_LABELS.on_alert, DAY_MS)
        if t == ALERT_STATE
    ]
    assert late.silence is None


def test_encode_lets_go_of_a_projector_and_of_older_ones(critical: Driver) -> None:
    projector = next(c for r in critical.results for c in r.controls if c.manifest.kind == "projector")
    header, arrays = read_projector(projector)
    lanes = Lanes([Site(SiteSettings(), SAE)])
    lanes.apply((header, arrays))
    assert lanes.forget(LANE.lane_id, header.version) is False
    assert lanes.forget(LANE.lane_id, header.version + 5) is True
    assert lanes.forget(LANE.lane_id, header.version + 5) is False
    assert lanes.outdated(header)
    assert lanes.outdated(structs.replace(header, version=header.version + 4))
    assert not lanes.outdated(structs.replace(header, version=header.version + 6))


def test_step_ignores_windows_of_the_projector_before(critical: Driver) -> None:
    learning = relearn(critical.state, marker(critical, "relearn"), next_position(critical)).state
    late = replace(learning, position=Position(partition=0, offset=10**6))
    after = step(late, critical.windows[-1], Position(partition=0, offset=10**6 + 1), late.closed_at_ms).state
    assert after.reasons["projector_travelling"] == critical.windows[-1].header.requests
    assert after.learned is None
