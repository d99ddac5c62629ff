from __future__ import annotations

import math
import time

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream_interp.observe.board import Board, Distribution, Reading, Snapshot
from stream_interp.observe.catalogue import METRICS
from stream_interp.observe.lanes import MAX_LANES
from stream_interp.observe.metrics import registry_of
from stream_interp.records.alert import Position, Said
from stream_interp.records.lane import Lane
from stream_interp.records.status import Coverage, IncidentCard, State, Status

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def status(k: int, state: State = "ok", **fields: object) -> Status:
    lane = Lane(model_id=f"model-{k}", hook_name="h")
    return Status(lane=lane, state=state, as_of_ms=5_000, closed_at_ms=4_000, position=Position(partition=0, offset=k),
                  sequence=1, **fields)  # type: ignore[arg-type]  # fmt: skip


def scrape(*boards: Board) -> Samples:
    """As Prometheus reads it; no sample comes twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry_of(boards)).decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"stream_interp_{name}", frozenset(labels.items())))


def shown(process: str, **fields: object) -> Board:
    board = Board(process)
    board.turn(lambda: Snapshot(**fields))  # type: ignore[arg-type]
    return board


def test_two_processes_share_one_page() -> None:
    encode = shown("encode", readings=(Reading("records", 7), Reading("busy_seconds", 1.5, ("decode",))))
    samples = scrape(shown("detect", readings=(Reading("records", 3),)), encode)
    assert value(samples, "records_total", process="encode") == 7
    assert value(samples, "records_total", process="detect") == 3
    assert value(samples, "busy_seconds_total", process="encode", phase="decode") == 1.5
    assert value(samples, "process_up", process="encode") == 1
    assert samples["process_resident_memory_bytes", frozenset()] > 1e6


def test_every_metric_of_the_catalogue_can_be_shown_and_is_named_as_prometheus_has_it() -> None:
    readings = [
        Reading(name, Distribution((1.0,), (2, 1), 3.0) if metric.kind == "histogram" else 1.0, metric.labels)
        for name, metric in METRICS.items()
        if name not in {"build_info", "process_up", "process_ready", "process_loop_age_seconds"}
    ]
    samples = scrape(shown("encode", readings=tuple(readings)))
    names = {name for name, _ in samples}
    for name, metric in METRICS.items():
        suffix = {"counter": "_total", "gauge": "", "histogram": "_bucket"}[metric.kind]
        assert f"stream_interp_{name}{suffix}" in names
        assert not name.endswith(("_total", "_ms"))
        assert not {"feature", "request_id"} & set(metric.labels)
    buckets = {dict(labels)["le"]: v for (name, labels), v in samples.items() if name.endswith("_seconds_bucket")}
    assert buckets == {"1.0": 2, "+Inf": 3}


def test_a_stuck_loop_is_down_and_a_starting_one_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, starting = shown("detect"), Board("encode", ["sae_loaded"])
    stuck.turned_s = time.monotonic() - 1_000
    samples = scrape(stuck, starting)
    assert value(samples, "process_up", process="detect") == 0
    assert value(samples, "process_up", process="encode") == 1
    assert value(samples, "process_ready", process="encode") == 0


def test_a_lane_is_told_by_its_state_and_nothing_that_is_not_known() -> None:
    incident = IncidentCard(
        incident_id="i", severity="critical", opened_request=1, opened_at_ms=1, cause_hint="features",
        features_drifted=12, ack=Said(author="a", reason="r", at_ms=1),
    )  # fmt: skip
    coverage = Coverage(requests_counted=90, requests_seen=100, reasons={"late": 10})
    one = status(1, "critical", incident=incident, coverage=coverage)
    samples, lane_id = scrape(shown("detect", statuses=(one,))), one.lane.lane_id
    states = {dict(labels)["state"]: v for (n, labels), v in samples.items() if n == "stream_interp_lane_state"}
    assert states.pop("critical") == 1
    assert set(states.values()) == {0}
    assert value(samples, "lane_severity", lane_id=lane_id) == 4
    assert value(samples, "lane_incident_open", lane_id=lane_id, severity="critical") == 1
    assert value(samples, "lane_incident_acknowledged", lane_id=lane_id) == 1
    assert value(samples, "lane_incident_features", lane_id=lane_id) == 12
    assert value(samples, "lane_requests_not_counted_total", lane_id=lane_id, reason="late") == 10
    assert value(samples, "lane_status_as_of_timestamp_seconds", lane_id=lane_id) == 5
    assert value(samples, "lane_explained_variance", lane_id=lane_id) is None
    assert value(samples, "lane_lag_age_seconds", lane_id=lane_id) is None


@pytest.mark.parametrize(("until_ms", "silenced"), [(0, 1), (4_999, 0), (5_001, 1)])
def test_a_silence_ends(until_ms: int, silenced: int) -> None:
    one = status(1, silence=Said(author="a", reason="r", at_ms=1, until_ms=until_ms))
    samples = scrape(shown("detect", statuses=(one,)))
    assert value(samples, "lane_silenced", lane_id=one.lane.lane_id) == silenced


def test_of_many_lanes_the_worst_are_exported_and_all_are_counted() -> None:
    many = [status(k) for k in range(MAX_LANES)] + [status(MAX_LANES + k, "blind") for k in range(200)]
    samples = scrape(shown("detect", statuses=tuple(many)))
    exported = [labels for name, labels in samples if name == "stream_interp_lane_info"]
    assert len(exported) == MAX_LANES
    severities = [v for (name, _), v in samples.items() if name == "stream_interp_lane_severity"]
    assert severities.count(5) == 200
    assert value(samples, "lanes_not_exported", process="detect") == 200
    assert value(samples, "lanes", process="detect", state="blind") == 200
    assert value(samples, "lanes", process="detect", state="ok") == MAX_LANES


def test_hostile_names_are_cut_inert_and_never_a_series_twice() -> None:
    evil = 'x"} 1\nstream_interp_lanes{state="ok"} 99\x1b[31m' + "y" * 10_000
    readings = tuple(Reading("sink_failing", 1, (evil + end,)) for end in ("a", "b"))
    samples = scrape(shown("notify", readings=readings))
    [labels] = [labels for name, labels in samples if name == "stream_interp_sink_failing"]
    sink = dict(labels)["sink"]
    assert len(sink) < 200
    assert sink.startswith('x"} 1 stream_interp_lanes{state="ok"} 99�[31m')


def test_a_lane_without_a_number_does_not_break_the_page() -> None:
    samples = scrape(shown("encode", readings=(Reading("sae_memory_bytes", math.nan), Reading("records", 1))))
    assert value(samples, "records_total", process="encode") == 1


def test_a_full_page_takes_well_under_a_scrape(capsys: pytest.CaptureFixture[str]) -> None:
    board = shown("detect", statuses=tuple(status(k) for k in range(10_000)))
    began_s = time.perf_counter()
    page = generate_latest(registry_of([board]))
    assert time.perf_counter() - began_s < 5
    assert len(page) < 5_000_000
