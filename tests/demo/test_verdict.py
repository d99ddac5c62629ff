import pytest

from stream_interp.demo.verdict import failures, findings
from stream_interp.demo.watch import Heard, applications_behind
from stream_interp.records.alert import Alert, Position, Transition
from stream_interp.records.lane import Lane
from stream_interp.records.window import CutRef

LANE = Lane(model_id="credit-risk", hook_name="hidden")
PLANTED = 2_001


def heard(end: int | None, transition: Transition = "opened", at_s: float = 1.0) -> Heard:
    """An alert whose window held the applications up to the `end`-th; None: one of no window."""
    cut = CutRef(topic="interp.activations", partition=0, a=0, b=end or 0)
    window_id = f"{LANE.lane_id}@{cut.topic}/{cut.partition}[{cut.a},{cut.b})" if end is not None else ""
    alert = Alert(
        event_id=f"{end}-{transition}",
        lane=LANE,
        incident_id="i",
        transition=transition,
        severity="critical",
        status="critical",
        cause_hint="data_shift",
        at_ms=0,
        position=Position(partition=0, offset=0),
        window_id=window_id,
    )
    return Heard(alert, at_s)


def short(alerts: list[Heard], planted: int | None = PLANTED, before="ok", after="critical", lost=0) -> list[str]:
    return failures(findings(alerts, planted), before, after, lost)


def test_an_alert_tells_the_application_that_its_window_ended_with():
    assert applications_behind(heard(2_040).alert) == 2_040
    assert applications_behind(heard(None).alert) is None


def test_found_after_the_shift():
    found = findings([heard(2_040), heard(2_090, "updated")], PLANTED)
    assert (found.first_alert_request, found.requests_to_alert, found.false_alarms) == (2_040, 40, 0)
    assert short([heard(2_040)]) == []


def test_the_first_shifted_application_may_raise_it_and_the_last_healthy_one_may_not():
    assert findings([heard(PLANTED)], PLANTED).requests_to_alert == 1
    early = findings([heard(PLANTED - 1)], PLANTED)
    assert (early.first, early.false_alarms) == (None, 1)


def test_an_early_alarm_counts_even_when_it_is_heard_after_the_shift():
    found = findings([heard(1_900, at_s=9.0), heard(2_040, at_s=9.1)], PLANTED)
    assert (found.false_alarms, found.first_alert_request) == (1, 2_040)
    assert any("alerts before the shift: 1" in failure for failure in short([heard(1_900), heard(2_040)]))


def test_an_alarm_that_kept_the_shift_from_being_planted():
    found = findings([heard(1_900)], None)
    assert (found.false_alarms, found.first_alert_request, found.requests_to_alert) == (1, None, None)
    assert len(short([heard(1_900)], planted=None, before="critical")) == 3  # alarm, status before, nothing found


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"alerts": [], "after": "ok"}, ["no alert after the shift", "was ok, expected critical"]),
        ({"alerts": [heard(2_040)], "after": "warning"}, ["was warning, expected critical"]),
        ({"alerts": [heard(2_040)], "before": "learning"}, ["was learning, expected ok"]),
        ({"alerts": [heard(2_040)], "lost": 3}, ["did not reach Kafka: 3"]),
        ({"alerts": [heard(None, "blind"), heard(2_040)]}, ["alerts before the shift: 1"]),
    ],
)
def test_what_falls_short_is_said(case, expected):
    said = short(**case)
    assert len(said) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, said, strict=True))
