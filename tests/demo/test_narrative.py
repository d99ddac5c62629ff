import io

from rich.console import Console

from stream_interp.demo.narrative import NEXT_COMMANDS, Narrative
from stream_interp.demo.table import describe, line, live_table
from stream_interp.records.alert import FeatureDrift, Position
from stream_interp.records.lane import Lane
from stream_interp.records.status import Coverage, IncidentCard
from stream_interp.status.judge import LaneStatus, ModelStatus, unknown

MEANINGS = ["high loan, low age", "a mix"]
DRIFT = FeatureDrift(
    feature=0,
    direction="up",
    log_e=30.0,
    log_threshold=7.0,
    rate_baseline=0.1,
    rate_now=0.6,
    detected_request=9,
)


class Watched:
    """What the table reads of a watch."""

    def __init__(self, *lanes: LaneStatus) -> None:
        answer = unknown("default", "credit-risk", None, "nothing is known")
        self.status = (
            ModelStatus(
                tenant="default",
                model_id="credit-risk",
                model_revision="unversioned",
                state=lanes[0].state,
                reason="",
                lanes=list(lanes),
            )
            if lanes
            else answer
        )
        self.lane = lanes[0] if lanes else None
        self.reported = lanes[0].coverage.requests_seen if lanes else 0


class Sent:
    """What the table reads of the traffic."""

    sent = 1_250


def critical() -> LaneStatus:
    incident = IncidentCard(
        incident_id="i",
        severity="critical",
        opened_request=9,
        opened_at_ms=0,
        cause_hint="data_shift",
        features_drifted=1,
        features=[DRIFT],
    )
    return LaneStatus(
        lane=Lane(model_id="credit-risk", hook_name="hidden"),
        state="critical",
        as_of_ms=0,
        closed_at_ms=0,
        position=Position(partition=0, offset=0),
        sequence=1,
        coverage=Coverage(requests_counted=1_080, requests_seen=1_200),
        incident=incident,
        age_s=0.1,
    )


def told(**options: bool) -> tuple[Narrative, io.StringIO]:
    text = io.StringIO()
    return Narrative(Console(file=text, width=120, **options)), text


def test_a_feature_is_named_by_what_it_stands_for():
    assert describe(DRIFT, MEANINGS) == "#0 (high loan, low age) 10% → 60%"


def test_the_line_holds_what_the_table_shows():
    shown = line(Watched(critical()), Sent, 248.6, MEANINGS)
    assert shown == (
        "lane credit-risk/hidden, state critical, coverage 90.0% of 1200, requests/s 249, in flight 50, "
        "top features #0 (high loan, low age) 10% → 60%"
    )
    assert line(Watched(), Sent, 0.0, MEANINGS) == "no lane yet, 1250 applications streamed"


def test_the_table_has_a_row_for_every_lane_and_one_for_none():
    assert live_table(Watched(critical()), Sent, 1.0, MEANINGS).row_count == 1
    assert live_table(Watched(), Sent, 1.0, MEANINGS).row_count == 1


def test_no_escape_codes_without_a_terminal_nor_colours_with_no_color(monkeypatch):
    narrative, text = told()
    narrative.step("Do [this]")
    assert text.getvalue() == "\n1/6  Do [this]\n"
    monkeypatch.setenv("NO_COLOR", "1")
    narrative, text = told(force_terminal=True)
    narrative.say("gone", style="red")
    assert text.getvalue() == "     gone\n"


def test_four_commands_to_try():
    assert len(NEXT_COMMANDS) == 4
    assert all(command.startswith("stream-interp ") for command, _ in NEXT_COMMANDS)
