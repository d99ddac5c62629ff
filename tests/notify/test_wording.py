"""What the person who is paged reads: what moved, since when, what to do first."""

from __future__ import annotations

from msgspec.structs import replace

from stream_interp.notify.story import Story
from stream_interp.notify.wording import Wording
from stream_interp.records.alert import Alert, CauseEvidence, FeatureDrift, ScoreDrift
from tests.notify.alerts import LANE, START_MS, alert

FEATURES = [
    FeatureDrift(
        feature=n, direction="up", log_e=9.0, log_threshold=6.0, rate_baseline=0.01, rate_now=0.5, detected_request=7
    )
    for n in (3, 5)
]
SCORE = ScoreDrift(
    score="mean_sq_norm", direction="up", group="t0", log_e=9.0, log_threshold=6.0, baseline_median=190.0,
    now_median=667.0, detected_request=7,
)  # fmt: skip
OPENED = alert(features_drifted=2, features=FEATURES, scores=[SCORE], opened_request=1163, change_estimate_request=1002)
PATHS = Wording(ui_url="", runbook_url="deploy/runbooks")


def told(event: Alert, wording: Wording = PATHS, ended_ms: int | None = None) -> tuple[str, list[str]]:
    story = Story(event, START_MS, event.cause_hint, ended_ms)
    sent = wording.of_story(story, "alert", [event.event_id], START_MS, START_MS)
    return sent.title, sent.text.split("\n")


def test_an_incident_says_what_moved_since_when_and_what_to_do_first() -> None:
    assert told(OPENED) == (
        "warning: drift on credit-risk/hidden (data_shift)",
        [
            "2 features drifted, share of requests that fire: 3 up 1.00% → 50.00%; 5 up 1.00% → 50.00%",
            "scores of requests, median: mean_sq_norm up 190 → 667",
            "since 2027-01-15 08:00:00 UTC; the change began about 161 requests earlier",
            "look first: stream-interp alerts show i1",
            "runbook: deploy/runbooks/data_shift.md",
            f"tenant default, model credit-risk, revision unversioned, hook hidden, lane {LANE.lane_id}",
        ],
    )


def test_a_cause_is_told_with_its_evidence_and_features_by_effect() -> None:
    found = [
        CauseEvidence(cause="pipeline", points=True, text="It is in input\npartition 1 alone."),
        CauseEvidence(cause="sae_health", points=False, text="It crossed no threshold."),
        CauseEvidence(cause="data_shift", points=True, text="Nothing points elsewhere."),
    ]
    event = replace(OPENED, causes=found, by_effect=FEATURES[1:], evidence_request=1150)
    assert told(event)[1][:4] == [
        "2 features drifted, share of requests that fire: 5 up 1.00% → 50.00%",
        "scores of requests, median: mean_sq_norm up 190 → 667",
        "pipeline: It is in input partition 1 alone.",
        "since 2027-01-15 08:00:00 UTC; the change began about 161 requests earlier; a request-level test crossed at "
        "request 1,150",
    ]


def test_what_is_over_asks_for_nothing() -> None:
    title, lines = told(alert("resolved", at_s=60), ended_ms=START_MS + 61_000)
    assert title == "warning: drift resolved on credit-risk/hidden (data_shift)"
    assert "from 2027-01-15 08:00:00 UTC to 2027-01-15 08:01:00 UTC" in lines
    assert not any(line.startswith("runbook:") for line in lines)


def test_a_blind_lane_says_what_that_means() -> None:
    title, lines = told(alert("blind", cause_hint="no_windows"))
    assert title == "critical: blind: no windows arrive on credit-risk/hidden (no_windows)"
    assert lines[0] == "Nothing of this lane is judged until windows arrive again."
    assert "runbook: deploy/runbooks/no_windows.md" in lines


def test_a_lane_whose_windows_do_not_count_is_not_said_to_have_none() -> None:
    title, lines = told(alert("blind", cause_hint="compute_dtype"))
    assert title == "critical: blind: requests are not judged on credit-risk/hidden (compute_dtype)"
    assert not any("arrive" in line for line in lines)
    assert "runbook: deploy/runbooks/compute_dtype.md" in lines
    assert "requests are judged again" in told(alert("seeing", cause_hint="compute_dtype"))[0]


def test_a_runbook_with_an_address_is_a_link_and_not_said_twice() -> None:
    _, lines = told(OPENED, Wording(ui_url="", runbook_url="https://wiki.test/runbooks"))
    assert not any(line.startswith("runbook:") for line in lines)


def test_an_id_that_a_shell_would_obey_is_in_no_command() -> None:
    _, lines = told(alert(incident="i1; rm -rf ~"))
    assert not any("rm -rf" in line for line in lines)


def test_a_silent_process_says_what_to_do_first() -> None:
    sent = PATHS.of_silence("s", "detect-0@h:1", None, START_MS, START_MS, alone=True)
    assert "look first: stream-interp doctor\nrunbook: deploy/runbooks/detector_silent.md" in sent.text
