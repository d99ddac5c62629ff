from __future__ import annotations

import pytest
from msgspec import structs

from stream_interp.records.alert import alert_state, encode_alert, encode_alert_state
from stream_interp.records.annotation import encode_annotation
from stream_interp.records.control import Order, encode_control, make_order
from stream_interp.records.cut import encode_cut
from stream_interp.records.envelope import Envelope
from stream_interp.records.heartbeat import encode_heartbeat
from stream_interp.records.lane import Lane
from stream_interp.records.status import encode_status
from stream_interp.ui.model import bounds
from stream_interp.ui.model import incidents as held_incidents
from stream_interp.ui.model import model as held
from stream_interp.ui.model.curve import MAX_POINTS, Curve
from stream_interp.ui.model.model import Model
from tests.notify.alerts import alert as notified
from tests.ui.records import NOW_MS, ack, baseline, beat, card, cut, feed, incident_id, lane, status, story

LANE = lane()
OPEN = story(LANE, 1, opened_at_ms=NOW_MS - 60_000, resolved=False)


def test_a_curve_spans_all_time_in_bounded_room() -> None:
    curve: Curve[int] = Curve()
    for k in range(10_000):
        curve.add(k)
        assert len(curve.points) <= MAX_POINTS + 1
    assert curve.points[0] == 0
    assert curve.points[-1] == 9_999
    steps = {b - a for a, b in zip(curve.points[:-2], curve.points[1:-1], strict=True)}
    assert len(steps) == 1  # evenly thinned


@pytest.mark.parametrize("order", ["alerts first", "state first"])
def test_the_last_word_does_not_depend_on_which_topic_is_read_first(order: str) -> None:
    model, last = Model(), alert_state(OPEN[-1], ack=None)
    batches = [("interp.alerts", list(map(encode_alert, OPEN))), ("interp.alert-state", [encode_alert_state(last)])]
    for topic, envelopes in batches if order == "alerts first" else batches[::-1]:
        feed(model, topic, *envelopes)
    row = model.incidents.find(OPEN[0].incident_id)
    assert row is not None
    assert (row.transition, row.severity, row.open) == ("updated", "critical", True)
    assert row.opened_at_ms == OPEN[0].at_ms


def test_an_ack_survives_later_transitions_and_is_part_of_the_story() -> None:
    model = Model()
    feed(model, "interp.alerts", encode_alert(OPEN[0]), encode_annotation(ack(LANE, OPEN[0].incident_id)))
    feed(model, "interp.alerts", *map(encode_alert, OPEN[1:]))
    row = model.incidents.find(OPEN[0].incident_id)
    assert row is not None
    assert row.ack is not None
    assert row.ack.author == "ada"
    events, forgotten = model.incidents.story(row)
    assert [getattr(e, "transition", None) or e.kind for e in events] == ["opened", "ack", "escalated", "updated"]
    assert forgotten == 0


def test_an_open_incident_counts_the_features_that_its_lane_counts_now() -> None:
    model, more = Model(), structs.replace(card(OPEN[-1]), features_drifted=16)
    feed(model, "interp.alerts", *map(encode_alert, OPEN))
    feed(model, "interp.status", encode_status(status(LANE, "critical", incident=more)))
    [row] = model.incidents.rows()
    assert row.features_drifted == 16
    feed(model, "interp.alerts", encode_alert(story(LANE, 1, opened_at_ms=NOW_MS - 60_000, resolved=True)[-1]))
    feed(model, "interp.status", encode_status(status(LANE, "critical", incident=more)))
    [row] = model.incidents.rows()
    assert (row.open, row.features_drifted) == (False, OPEN[-1].features_drifted)


def test_an_incident_forgets_its_oldest_events_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_incidents, "MAX_EVENTS", 5)
    model = Model()
    feed(model, "interp.alerts", *[encode_alert(structs.replace(OPEN[0], request=k)) for k in range(12)])
    events, forgotten = model.incidents.story(next(iter(model.incidents.rows())))
    assert [e.request for e in events] == [7, 8, 9, 10, 11]
    assert forgotten == 7


def test_stories_are_bounded_in_bytes_and_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(encode_alert(OPEN[0]).value or b"")
    monkeypatch.setattr(held_incidents, "MAX_STORY_BYTES", 10 * one)
    model = Model()
    for number in range(50):
        feed(model, "interp.alerts", encode_alert(story(LANE, number, opened_at_ms=NOW_MS, resolved=False)[0]))
    rows = {row.incident_id: row for row in model.incidents.rows()}
    assert len(rows) == 50
    assert model.incidents._story_bytes <= 10 * one
    assert model.incidents.story(rows[incident_id(LANE, 0)]) == ([], 1)
    assert len(model.incidents.story(rows[incident_id(LANE, 49)])[0]) == 1


def test_of_too_many_incidents_closed_ones_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_incidents, "MAX_PER_LANE", 3)
    model = Model()
    feed(model, "interp.alerts", *map(encode_alert, OPEN))
    for number in range(2, 9):
        feed(model, "interp.alerts", *map(encode_alert, story(LANE, number, opened_at_ms=NOW_MS, resolved=True)))
    kept = {row.incident_id for row in model.incidents.rows()}
    assert kept == {OPEN[0].incident_id, incident_id(LANE, 7), incident_id(LANE, 8)}


def test_the_account_finds_gaps_overlaps_and_records_without_a_fate() -> None:
    model = Model()
    cuts = cut(0, 0, 100, LANE), cut(0, 100, 180, LANE), cut(0, 200, 300, LANE), cut(0, 290, 310, LANE)
    feed(model, "interp.cuts", *map(encode_cut, cuts))
    account = model.account.partitions["interp.activations", 0]
    assert [(gap.expected, gap.begins) for gap in account.gaps] == [(180, 200), (300, 290)]
    assert account.unaccounted == 0
    assert account.not_counted == {"duplicate": 4, "rejected": 4}
    feed(model, "interp.cuts", encode_cut(cut(0, 310, 320, LANE, counted_records=5)))
    assert account.unaccounted == 3


def test_what_waited_before_the_first_cut_held_is_not_called_lost() -> None:
    model = Model()
    first = cut(0, 100, 110, LANE, records=10, counted_records=14, not_counted={}, pending_records=1)
    feed(model, "interp.cuts", encode_cut(first))
    feed(model, "interp.cuts", encode_cut(cut(0, 110, 120, LANE, counted_records=11, not_counted={})))
    account = model.account.partitions["interp.activations", 0]
    assert account.pending_at_start == 5
    assert account.unaccounted == 0


def test_control_gives_baselines_without_their_arrays_and_orders_with_their_authors() -> None:
    model = Model()
    feed(model, "interp.control", *baseline(LANE, 7, "grace", "wanted shift"))
    order = Order(kind="relearn", lane=LANE, version=8)
    feed(model, "interp.control", *encode_control(make_order(order, "ada", "new customers")))
    version = model.versions.baseline(LANE, 7)
    assert version is not None
    assert (version.manifest.author, version.manifest.reason, version.header.requests) == (
        "grace",
        "wanted shift",
        8_000,
    )
    assert [(row.kind, row.author) for row in model.versions.orders[LANE.lane_id]] == [("relearn", "ada")]


def test_what_cannot_be_read_is_counted_and_stops_nothing() -> None:
    model = Model()
    for topic in model.topics:
        for value in (b"{", b"\xff\xfe", b"[" * 5_000, b'{"type":"interp.alert.transition.v9"}'):
            feed(model, topic, Envelope(b"\xff", [], value))
    assert set(model.unreadable) == set(model.topics)
    feed(model, "interp.status", encode_status(status(LANE)))
    assert model.statuses[LANE.lane_id].state == "ok"


def test_lanes_and_processes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MAX_LANES", 3)
    monkeypatch.setattr(held, "MAX_PROCESSES", 2)
    model = Model()
    for k in range(6):
        feed(model, "interp.status", encode_status(status(lane(k), age_s=10 - k)))
        feed(model, "interp.heartbeat", encode_heartbeat(beat(f"p{k}", "encode", age_s=10 - k)))
    assert set(model.statuses) == {lane(k).lane_id for k in (3, 4, 5)}
    assert set(model.curves) == set(model.statuses)
    assert set(model.heartbeats) == {"p4", "p5"}


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds.put, "__defaults__", (3,))
    model = Model()
    for number in range(6):
        lane = Lane(model_id=f"m{number}", hook_name="h")
        for topic, envelopes in {
            "interp.alerts": [encode_alert(notified("opened", f"i{number}", lane=lane))],
            "interp.control": encode_control(make_order(Order(kind="ack", lane=lane, version=1), "ann", "r")),
        }.items():
            feed(model, topic, *envelopes)
    kept = [Lane(model_id=f"m{number}", hook_name="h").lane_id for number in (3, 4, 5)]
    assert list(model.incidents.lanes()) == list(model.versions.lanes) == list(model.versions.orders) == kept
    assert len(model.incidents._told) == 3
    assert model.incidents._story_bytes == sum(len(raw) for s in model.incidents._told.values() for raw in s.events)


def test_a_lane_with_endless_names_is_left_out() -> None:
    model, endless = Model(), Lane(model_id="x" * 100_000, hook_name="h")
    feed(model, "interp.alerts", encode_alert(notified("opened", lane=endless)))
    assert model.unreadable["interp.alerts"] == 1
    assert model.lanes() == {}
