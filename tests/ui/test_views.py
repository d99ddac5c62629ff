from __future__ import annotations

import msgspec
import pytest
from msgspec import structs
from scipy.stats import binomtest

from stream_interp.records.alert import Position, Said, encode_alert
from stream_interp.records.annotation import Annotation, encode_annotation
from stream_interp.records.cut import encode_cut
from stream_interp.records.heartbeat import encode_heartbeat
from stream_interp.records.status import encode_status
from stream_interp.ui.model.model import Model
from stream_interp.ui.views.account import baselines, cuts_account
from stream_interp.ui.views.fleet import fleet, incident_list
from stream_interp.ui.views.incident import incident_view
from stream_interp.ui.views.lane import lane_view
from stream_interp.ui.views.lanes import Now
from stream_interp.ui.views.processes import processes
from tests.ui import records
from tests.ui.records import (
    NOW_MS,
    ack,
    baseline,
    beat,
    card,
    cut,
    drift,
    feed,
    give_story,
    incident_id,
    lane,
    status,
    story,
)

NOW = Now(NOW_MS, 15_000)
LANE = lane()


def with_status(*statuses: object) -> Model:
    model = Model()
    feed(model, "interp.status", *map(encode_status, statuses))  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize(
    ("age_s", "state"), [(0.0, "ok"), (14.9, "ok"), (15.1, "unknown"), (-14.9, "ok"), (-16.0, "unknown")]
)
def test_a_status_that_nobody_vouches_for_is_unknown_never_ok(age_s: float, state: str) -> None:
    row = fleet(with_status(status(LANE, age_s=age_s)), NOW).lanes.items[0]
    assert row.state == state
    assert bool(row.reason) == (state == "unknown")


def test_a_lane_without_status_is_unknown_whoever_speaks_of_it() -> None:
    model = Model()
    feed(model, "interp.control", *baseline(lane(1), 5))
    feed(model, "interp.cuts", encode_cut(cut(0, 0, 10, lane(2))))
    give_story(model, story(lane(3), 1, opened_at_ms=NOW_MS, resolved=True))
    view = fleet(model, NOW)
    assert view.counts == {"unknown": 3}
    assert view.state == "unknown"
    assert fleet(Model(), NOW).state == "unknown"


def test_lanes_come_worst_first_and_what_nobody_acknowledged_before() -> None:
    said = Said(author="ada", reason="", at_ms=NOW_MS)
    told = story(lane(1), 1, opened_at_ms=NOW_MS, resolved=False)[-1]
    view = fleet(with_status(
        status(lane(0)), status(lane(1), "critical", incident=card(told, said)), status(lane(2), "warning"),
        status(lane(3), "critical", incident=card(told)), status(lane(4), age_s=99), status(lane(5), "blind"),
        status(lane(6), "integrity_error"), status(lane(7), "learning"), status(lane(8), "recovering"),
    ), NOW)  # fmt: skip
    assert [row.lane for row in view.lanes.items] == [lane(k) for k in (6, 5, 4, 3, 1, 2, 8, 7, 0)]
    assert list(view.counts) == [
        "integrity_error", "blind", "unknown", "critical", "warning", "recovering", "learning", "ok",
    ]  # fmt: skip


def test_a_silence_ends_and_failing_sinks_are_named() -> None:
    over = Said(author="ada", reason="", at_ms=0, until_ms=NOW_MS)
    model = with_status(
        status(lane(0), silence=over), status(lane(1), silence=structs.replace(over, until_ms=NOW_MS + 1))
    )
    feed(model, "interp.heartbeat", encode_heartbeat(beat("n", "notify", sinks_failing=["pager"])))
    feed(model, "interp.heartbeat", encode_heartbeat(beat("old", "notify", 99.0, sinks_failing=["mail"])))
    view = fleet(model, NOW)
    assert (view.silences, view.sinks_failing) == (1, ["pager"])


def test_search_and_pages() -> None:
    model = with_status(*(status(lane(k)) for k in range(50)))
    page = fleet(model, NOW, page=2, size=20).lanes
    assert (len(page.items), page.page, page.pages, page.total) == (20, 2, 3, 50)
    assert fleet(model, NOW, page=99, size=20).lanes.page == 3
    found = fleet(model, NOW, query="KYC blocks.3.").lanes
    assert [row.lane.hook_name for row in found.items] == ["blocks.3.resid_post"]
    assert fleet(model, NOW, query="zzz").counts == {"ok": 50}


def test_incidents_open_ones_first_and_only_open_ones() -> None:
    model = Model()
    records.fleet(model, lanes=4, incidents=6)
    everything = incident_list(model, NOW, size=10).incidents
    assert everything.total == 4 * 6 - 0
    assert [row.open for row in everything.items[:4]] == [True, True, True, False]
    assert incident_list(model, NOW, only_open=True).incidents.total == 3
    assert incident_list(model, NOW, lane_id=lane(3).lane_id).incidents.total == 5 + 1


def test_features_by_effect_size_with_exact_intervals() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS - 60_000, resolved=False)
    give_story(model, told)
    feed(model, "interp.control", *baseline(LANE, told[0].baseline_version))
    view = incident_view(model, told[0].incident_id, NOW)
    assert view is not None
    assert [row.drift.feature for row in view.features] == [88, 1_204, 917, 3_310, 2_045]
    row = view.features[1]
    for rate, n in ((row.before, 8_000), (row.now, 240)):
        exact = binomtest(round(rate.rate * n), n).proportion_ci(0.95, method="exact")
        assert (rate.low, rate.high) == pytest.approx((exact.low, exact.high))
    assert view.features[0].ratio is None


def test_a_feature_that_moved_most_is_shown_once_whatever_its_evidence() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS - 60_000, resolved=False)
    extra = drift(7, 0.001, 0.9, log_e=21.0)
    give_story(model, [structs.replace(a, by_effect=[extra, a.features[0]]) for a in told])
    view = incident_view(model, told[0].incident_id, NOW)
    assert view is not None
    features = [row.drift.feature for row in view.features]
    assert 7 in features[:2]
    assert sorted(features) == sorted({7, *(f.feature for f in told[-1].features)})


def test_without_a_count_there_is_no_interval() -> None:
    model, told = (
        Model(),
        story(LANE, 1, opened_at_ms=NOW_MS, resolved=False, features=[drift(1, 0.1, 0.3, requests_now=0)]),
    )
    give_story(model, told)
    view = incident_view(model, told[0].incident_id, NOW)
    assert view is not None
    assert (view.features[0].before.low, view.features[0].now.low) == (None, None)


def test_the_story_has_the_silences_of_its_lane_and_time_and_no_others() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS - 600_000, resolved=True)
    give_story(model, told)
    for at_ms in (told[0].at_ms - 4_000_000, told[0].at_ms + 1, told[-1].at_ms + 1):
        note = Annotation(event_id=f"{at_ms}", lane=LANE, kind="silence", author="eve", reason="", at_ms=at_ms)
        feed(model, "interp.alerts", encode_annotation(note))
    feed(model, "interp.alerts", encode_annotation(ack(LANE, told[0].incident_id)))
    view = incident_view(model, told[0].incident_id, NOW)
    assert view is not None
    assert [e.what for e in view.events] == ["opened", "silence", "escalated", "updated", "resolved", "ack"]
    assert view.events[1].author == "eve"


def test_paths_of_transitions_alarm_at_zero() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS, resolved=False)
    give_story(model, told)
    view = incident_view(model, told[0].incident_id, NOW)
    assert view is not None
    strongest = view.paths.series[0]
    assert strongest.name == "feature 1204 up"
    assert [request for request, _ in strongest.points] == [47_991, 48_051, 48_111]
    assert strongest.points[-1][1] == pytest.approx((31.2 - 20.6) / 2.302585)


def test_a_command_to_copy_cannot_run_anything_else() -> None:
    model, hostile = Model(), "$(touch /tmp/x); `id` '"
    told = structs.replace(story(LANE, 1, opened_at_ms=NOW_MS, resolved=False)[0], incident_id=hostile)
    feed(model, "interp.alerts", encode_alert(told))
    view = incident_view(model, hostile, NOW)
    assert view is not None
    assert "stream-interp evidence '$(touch /tmp/x); `id` '\"'\"'' --out ./evidence" in [c.line for c in view.commands]


def _offered(model: Model, of: str) -> list[str]:
    view = incident_view(model, of, NOW)
    assert view is not None
    return [" ".join(command.line.split()[1:3]) for command in view.commands]


def test_commands_are_those_that_are_not_refused() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS, resolved=True)
    this = told[0].incident_id
    feed(model, "interp.alerts", *map(encode_alert, told[:-1]))
    assert _offered(model, this) == ["alerts ack", "alerts resolve", "baseline relearn", f"evidence {this}"]
    feed(model, "interp.alerts", encode_annotation(ack(LANE, this)))
    assert _offered(model, this) == ["alerts resolve", "baseline relearn", f"evidence {this}"]
    feed(model, "interp.alerts", encode_alert(told[-1]))
    assert _offered(model, this) == [f"evidence {this}"]
    blind = structs.replace(told[0], incident_id="b", transition="blind", event_id="b1", groups=[], features=[])
    feed(model, "interp.alerts", encode_alert(blind))
    assert _offered(model, "b") == ["alerts ack", "alerts silence"]
    seeing = structs.replace(blind, transition="seeing", event_id="b2", severity="info")
    feed(model, "interp.alerts", encode_alert(seeing))
    assert _offered(model, "b") == []


def test_drift_is_not_pushed_out_by_many_blind_lanes() -> None:
    model, told = Model(), story(LANE, 1, opened_at_ms=NOW_MS - 900_000, resolved=False)
    feed(model, "interp.alerts", *map(encode_alert, told))
    for k in range(20):
        blind = structs.replace(
            told[0], incident_id=f"b{k}", transition="blind", severity="critical", event_id=f"b{k}", lane=lane(k + 1),
            at_ms=NOW_MS, groups=[],
        )  # fmt: skip
        feed(model, "interp.alerts", encode_alert(blind))
    view = fleet(model, NOW)
    assert view.open_total == 21
    assert view.open_incidents[0].incident_id == told[0].incident_id


def test_a_lane_that_is_blind_is_listed_as_such_until_it_sees_again() -> None:
    model = Model()
    blind = structs.replace(
        story(LANE, 1, opened_at_ms=NOW_MS, resolved=False)[0], transition="blind", cause_hint="blind", incident_id="b",
    )  # fmt: skip
    feed(model, "interp.alerts", encode_alert(blind))
    row = model.incidents.find("b")
    assert row is not None
    assert (row.about, row.open) == ("lane", True)
    seeing = structs.replace(blind, transition="seeing", position=Position(partition=1, offset=99))
    feed(model, "interp.alerts", encode_alert(seeing))
    row = model.incidents.find("b")
    assert row is not None
    assert not row.open


def test_the_lane_view_has_curves_baseline_in_force_and_history() -> None:
    model = Model()
    records.fleet(model, lanes=2, incidents=12)
    feed(model, "interp.control", *baseline(LANE, NOW_MS - 1, "grace", "newer, not in force"))
    view = lane_view(model, LANE.lane_id, NOW)
    assert view is not None
    assert [s.name for s in view.health] == ["explained_variance", "l0", "norm", "massive_share"]
    assert len(view.health[0].points) == 61
    assert [row.in_force for row in view.baselines] == [False, True]
    assert (view.incidents.total, len(view.incidents.items)) == (12, 10)
    assert lane_view(model, "0" * 16, NOW) is None
    assert baselines(model, NOW).baselines.total == 3


def test_accounts_that_do_not_balance_come_first() -> None:
    model = Model()
    feed(model, "interp.cuts", *[encode_cut(cut(p, 0, 10, LANE)) for p in range(4)])
    assert cuts_account(model, NOW).balanced
    feed(model, "interp.cuts", encode_cut(cut(3, 12, 20, LANE)))
    view = cuts_account(model, NOW)
    assert not view.balanced
    assert view.partitions.items[0].partition == 3


def test_silent_processes_come_first_and_one_that_said_it_ends_is_no_alarm() -> None:
    model = Model()
    beats = beat("a", "encode"), beat("b", "detect", 16.0), beat("c", "notify", 500.0, stopping=True)
    feed(model, "interp.heartbeat", *map(encode_heartbeat, beats))
    assert [(r.process_id, r.state) for r in processes(model, NOW).processes] == [
        ("b", "silent"), ("a", "alive"), ("c", "ended"),
    ]  # fmt: skip


def test_every_view_is_json_with_a_version() -> None:
    model = Model()
    records.fleet(model, lanes=7, incidents=2)
    views = [
        fleet(model, NOW), incident_list(model, NOW), lane_view(model, LANE.lane_id, NOW), cuts_account(model, NOW),
        incident_view(model, incident_id(LANE, 2), NOW), baselines(model, NOW), processes(model, NOW),
    ]  # fmt: skip
    for view in views:
        assert msgspec.json.decode(msgspec.json.encode(view))["schema_version"] == 1
