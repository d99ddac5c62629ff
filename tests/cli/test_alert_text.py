"""Incidents and what was said of them, as people read them; whatever names they hold."""

from __future__ import annotations

import shlex

import pytest
from msgspec import structs

from stream_interp.cli import alert_text, app
from stream_interp.cli.alerts import wanted
from stream_interp.kafka.story import story_of
from stream_interp.records.alert import CauseEvidence, Said, alert_state
from stream_interp.records.annotation import Annotation
from stream_interp.records.lane import Lane
from tests.topics.samples import ALERT, ALERT_STATE, ANNOTATION, AT_MS, FEATURE, LANE, SAID

HOSTILE = "<script>alert(1)</script>\x1b[31m\x1b]0;owned\x07\r\n\u202e[bold]" + "A" * 10_000
HOUR_MS = 3_600_000


def annotation(at_ms, kind="silence", incident_id=""):
    return Annotation(
        event_id=f"{kind}{at_ms}", lane=LANE, kind=kind, incident_id=incident_id, author="ada", reason="", at_ms=at_ms
    )


def test_an_annotation_is_a_line_of_who_and_until_when_as_claimed():
    row = alert_text.line(structs.replace(ANNOTATION, author="ada", reason="looking", until_ms=AT_MS))
    assert row.endswith("until 2026-01-01T00:00:00.000Z | by ada (as claimed): looking")


@pytest.mark.parametrize("transition", ["opened", "resolved", "blind", "integrity_error", "seeing"])
def test_hostile_names_reasons_and_labels_stay_inert_and_short(transition):
    lane = Lane(tenant=HOSTILE, model_id=HOSTILE, hook_name=HOSTILE, model_revision=HOSTILE)
    said = Said(author=HOSTILE, reason=HOSTILE, at_ms=AT_MS, until_ms=10**18)
    drift = structs.replace(FEATURE, label=HOSTILE)
    alert = structs.replace(
        ALERT, lane=lane, incident_id=HOSTILE, cause_hint=HOSTILE, note=HOSTILE, runbook=HOSTILE, features=[drift] * 5,
        transition=transition, at_ms=-(10**15), by_effect=[drift] * 5,
        causes=[CauseEvidence(cause=HOSTILE, points=points, text=HOSTILE) for points in (True, False)],
    )  # fmt: skip
    state = alert_state(alert, ack=said, silence=said)
    note = structs.replace(ANNOTATION, lane=lane, incident_id=HOSTILE, author=HOSTILE, reason=HOSTILE)
    texts = [
        alert_text.line(alert), alert_text.line(note), *alert_text.headline(state, AT_MS),
        alert_text.runbook(state, "deploy/runbooks"), *alert_text.next_commands(state, AT_MS),
        *map(str, alert_text.list_row(state, AT_MS)), *map(str, alert_text.feature_row(drift)),
        *map(str, alert_text.story_row(alert)), *map(str, alert_text.story_row(note)),
    ]  # fmt: skip
    assert all(text.isprintable() for text in texts)
    assert max(map(len, texts)) < 2_000


def test_an_incident_says_what_was_considered_and_what_moved_most():
    lines = alert_text.headline(alert_state(ALERT), AT_MS)
    assert "a request-level test crossed first at request 407" in lines
    assert "does not point to pipeline: Nothing shows that the change is in some input partitions alone." in lines
    assert "points to data_shift: Nothing points elsewhere. What moved: 1 feature." in lines
    assert "moved most: #6 up 1.00%→35.00%" in lines
    found = CauseEvidence(cause="pipeline", points=True, text="It is in input partition 1 alone.")
    assert "| It is in input partition 1 alone." in alert_text.line(structs.replace(ALERT, causes=[found]))
    assert "Nothing points elsewhere" not in alert_text.line(ALERT)


def test_what_no_longer_holds_is_not_shown():
    over = Said(author="ada", reason="", at_ms=AT_MS, until_ms=AT_MS + HOUR_MS)
    assert alert_text.said(over, AT_MS) == "ada (as claimed) until 2026-01-01T01:00:00.000Z"
    assert alert_text.said(over, AT_MS + HOUR_MS) is None
    assert alert_text.said(SAID, 10 * AT_MS) == "ada (as claimed): known campaign"
    assert alert_text.said(None, 0) is None


def test_a_runbook_is_named_after_the_cause_and_nothing_else():
    assert alert_text.runbook(ALERT, "https://wiki/r/") == f"https://wiki/r/{ALERT.cause_hint}.md"
    for cause in ("../../etc/passwd", "", "a b", "x\n", "javascript:alert"):
        assert alert_text.runbook(structs.replace(ALERT, cause_hint=cause), "r") == "r/README.md"


@pytest.mark.parametrize("transition", ["opened", "escalated", "resolved", "blind", "integrity_error", "seeing"])
@pytest.mark.parametrize("ack", [None, SAID])
def test_the_three_next_commands_can_be_typed_as_printed(transition, ack):
    lane = structs.replace(LANE, model_id="it's $(a) model; rm -rf /")
    state = alert_state(structs.replace(ALERT, lane=lane, transition=transition), ack=ack)
    commands = alert_text.next_commands(state, AT_MS)
    assert len(commands) == 3
    for command in commands:
        _, *words = shlex.split(command)
        parse(words)


def parse(words):
    """As `main` would, up to running it."""
    group = app.root()
    while words:
        _, command, words = group.resolve_command(None, words)
        if not hasattr(command, "commands"):
            return command.make_context("c", words)
        group = command
    raise AssertionError("no command")


def test_the_list_has_open_ones_newest_first_and_filters():
    def state(number, transition, model_id="m", tenant="t"):
        lane = Lane(tenant=tenant, model_id=model_id, hook_name="h")
        return alert_state(
            structs.replace(ALERT, lane=lane, transition=transition, incident_id=number, at_ms=int(number))
        )

    states = {s.incident_id: s for s in (
        state("1", "opened"), state("3", "escalated"), state("2", "resolved"), state("4", "blind", "n"),
        state("5", "seeing"), state("6", "integrity_error", tenant="u"),
    )}  # fmt: skip

    def ids(**filters):
        given = {"all_": False, "model_id": None, "tenant": None, **filters}
        return "".join(s.incident_id for s in wanted(states, **given))

    assert ids() == "6431"
    assert ids(all_=True) == "654321"
    assert ids(model_id="m") == "631"
    assert ids(tenant="u") == "6"


def test_a_story_has_its_transitions_its_acks_and_the_silences_while_it_was_open():
    opened = structs.replace(ALERT, event_id="o", incident_id="i", transition="opened", at_ms=10)
    resolved = structs.replace(ALERT, event_id="r", incident_id="i", transition="resolved", at_ms=20)
    other = structs.replace(ALERT, incident_id="j", at_ms=15)
    before, during, after = annotation(5), annotation(15), annotation(25)
    late_ack, others_ack = annotation(30, "ack", "i"), annotation(16, "ack", "j")
    events = [before, opened, opened, other, during, others_ack, resolved, after, late_ack]  # one was told twice
    assert story_of(events, "i") == [opened, during, resolved, late_ack]
    assert story_of([before, opened, after], "i") == [opened, after]
    assert story_of([before, other], "gone") == [before]


def test_what_was_found_after_the_alarm_is_said() -> None:
    drift = structs.replace(FEATURE, ratio_low=1.5, ratio_high=None)
    found = structs.replace(
        ALERT_STATE, features=[drift], after_alarm=True, change_low_request=380, change_high_request=404,
        change_low_offset=70, change_high_offset=73,
    )  # fmt: skip
    (line,) = [text for text in alert_text.headline(found, AT_MS) if "confidence" in text]
    assert "requests 380 to 404" in line
    assert "offsets 70 to 73" in line
    row = dict(zip(alert_text.FEATURE_COLUMNS, alert_text.feature_row(drift), strict=True))
    assert row["ratio, 90 %"] == "×1.50 to any"
    assert alert_text.ratio_text(structs.replace(drift, ratio_high=2.25)) == "×1.50 to ×2.25"
    assert alert_text.ratio_text(FEATURE) is None
    assert "380 to 404" in str(alert_text.story_row(found)[-1])
