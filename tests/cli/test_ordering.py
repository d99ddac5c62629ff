"""Who signs an order and why, how long it holds, which incident or lane it means."""

from __future__ import annotations

import getpass

import pytest
from msgspec import structs

from stream_interp.cli import main
from stream_interp.cli.finding import by_prefix, cut, find_incident, find_lane, lane_name
from stream_interp.cli.ordering import (
    MAX_AUTHOR_CHARS,
    MAX_REASON_CHARS,
    answer_to,
    duration_ms,
    signature,
)
from stream_interp.cli.orders import open_incident
from stream_interp.errors import UsageError
from stream_interp.records.alert import alert_state
from stream_interp.records.annotation import make_annotation
from stream_interp.records.control import Order, make_order
from stream_interp.records.lane import Lane
from tests.topics.samples import ALERT, ALERT_STATE, LANE

IDS = {"abc123": "one", "abd456": "two", "ffff00": "three"}


@pytest.mark.parametrize(
    ("text", "ms"), [("90m", 5_400_000), ("2h", 7_200_000), ("7d", 604_800_000), ("1d12h", 129_600_000), ("5s", 5_000)]
)
def test_durations(text, ms):
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "0h", "2", "h", "-2h", "2 h", "2h30", "1w", "2H", "9" * 50 + "d", "2h\x1b[2J"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="such as 90m, 2h or 1d12h"):
        duration_ms(text)


def test_the_login_name_signs_unless_another_is_given(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert signature(None, " why ") == ("ada", "why")
    assert signature("bo", "why") == ("bo", "why")
    assert signature("bo", "", required=False) == ("bo", "")


def test_a_process_without_a_login_name_has_to_say_one(monkeypatch):
    def nobody():
        raise OSError("no entry")

    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(UsageError, match="--author NAME"):
        signature(None, "why")


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[31mred", "tab\there", "\u202eevil", "\u2028", "\x00", "\udc80", "\x9b2J"]
)
def test_what_does_not_print_is_refused_by_name(text):
    with pytest.raises(UsageError, match=r"--reason: character \d+ is U\+[0-9A-F]{4}"):
        signature("ada", f"x{text}x")
    with pytest.raises(UsageError, match="--author: character"):
        signature(f"x{text}x", "why")


def test_lengths_are_bounded():
    assert len(signature("a" * MAX_AUTHOR_CHARS, "r" * MAX_REASON_CHARS).reason) == MAX_REASON_CHARS
    with pytest.raises(UsageError, match=r"--reason has 10,000 characters; expected at most 500"):
        signature("ada", "r" * 10_000)
    with pytest.raises(UsageError, match=r"--author has 101 characters"):
        signature("a" * 101, "why")


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_reason_is_required(reason):
    with pytest.raises(UsageError, match="--reason is empty"):
        signature("ada", reason)


@pytest.mark.parametrize("author", ["", "  ", "detect", " detect "])
def test_no_person_signs_as_detect_whose_records_need_no_marker(author):
    with pytest.raises(UsageError, match="expected a person's name"):
        signature(author, "why")


def test_the_beginning_of_an_id_is_enough_if_it_is_one():
    assert by_prefix("abc", IDS, "incident") == "abc123"
    assert by_prefix("ffff00", IDS, "incident") == "ffff00"
    assert by_prefix("ab", {"ab": "whole", "abc": "longer"}, "incident") == "ab"


def test_latest_is_the_newest_incident_of_drift_and_else_of_anything():
    drift, later = ALERT_STATE, structs.replace(ALERT_STATE, incident_id="i2", at_ms=ALERT_STATE.at_ms + 1)
    blind = structs.replace(later, incident_id="b", at_ms=later.at_ms + 1, groups=[])
    assert find_incident("latest", {state.incident_id: state for state in (drift, later, blind)}) == later
    assert find_incident("latest", {"b": blind}) == blind
    with pytest.raises(UsageError, match="no incident is known, so that 'latest'"):
        find_incident("latest", {})


def test_a_lane_is_found_by_its_model_if_it_is_the_only_one():
    other = structs.replace(LANE, hook_name="layer.99")
    assert find_lane(LANE.model_id, [LANE]) == LANE
    assert find_lane(LANE.lane_id[:9], [LANE, other]) == LANE
    with pytest.raises(UsageError, match="fits none"):
        find_lane(LANE.model_id, [LANE, other])


def test_an_unknown_or_ambiguous_word_lists_candidates():
    with pytest.raises(UsageError, match=r"'ab' fits 2 of them.*abc123 \(one\), abd456 \(two\)$"):
        by_prefix("ab", IDS, "incident")
    with pytest.raises(UsageError, match=r"'zz' fits none.*ffff00 \(three\)"):
        by_prefix("zz", IDS, "incident")
    with pytest.raises(UsageError, match="no lane is known"):
        by_prefix("zz", {}, "lane")
    with pytest.raises(UsageError, match="fits none"):
        by_prefix("", IDS, "lane")


def test_the_list_of_candidates_and_the_echo_are_short_and_inert():
    with pytest.raises(UsageError) as caught:
        by_prefix("\x1b[2J" + "w" * 10_000, {f"id{k}": "x" for k in range(100)}, "lane")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(", …")


def test_names_of_others_are_cut_and_inert():
    hostile = Lane(model_id="<b>\x1b]0;owned\x07\nrm -rf" + "m" * 10_000, hook_name="h\u202e", tenant="t")
    shown = lane_name(hostile)
    assert shown.isprintable()
    assert len(shown) < 260
    assert cut("x" * 61).endswith("…")


def test_only_an_open_incident_is_found():
    ended = alert_state(structs.replace(ALERT, incident_id="e" * 16, transition="resolved"))
    opened = alert_state(structs.replace(ALERT, incident_id="f" * 16, transition="opened"))
    states = {s.incident_id: s for s in (ended, opened)}
    assert open_incident(states, "f") == opened
    with pytest.raises(UsageError, match=r"has ended \(resolved at"):
        open_incident(states, "e" * 16)
    with pytest.raises(UsageError, match="Known: ffff"):
        open_incident(states, "e")


def test_an_annotation_answers_its_own_order_only():
    one, two = (make_order(Order(kind="ack", lane=LANE, version=v, incident_id="i"), "ada", "") for v in (1, 2))
    order = Order(kind="ack", lane=LANE, version=1, incident_id="i")
    annotation = make_annotation(one, order)
    assert answer_to(one)(annotation)
    assert not answer_to(two)(annotation)
    assert not answer_to(one)(ALERT)


def test_a_resolved_transition_of_that_incident_answers_a_resolve():
    order = Order(kind="resolve", lane=LANE, version=1, incident_id=ALERT.incident_id)
    answers = answer_to(make_order(order, "ada", "why"))
    assert answers(structs.replace(ALERT, transition="resolved"))
    assert not answers(structs.replace(ALERT, transition="opened"))
    assert not answers(structs.replace(ALERT, transition="resolved", incident_id="other"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alerts", "silence", "x", "--for", "8d", "--reason", "r"], "expire within 7d"),
        (["alerts", "silence", "x", "--for", "soon", "--reason", "r"], "such as 90m"),
        (["alerts", "silence", "x", "--for", "2h", "--reason", ""], "--reason is empty"),
        (["alerts", "ack", "x", "--reason", "a\nb"], "U+000A"),
        (["alerts", "resolve", "x", "--reason", "r", "--author", "detect"], "person's name"),
        (["baseline", "relearn", "x", "--reason", " "], "--reason is empty"),
    ],
)
def test_wrong_words_are_said_before_any_server_is_asked(words, said, capsys):
    assert main([*words, "--bootstrap", "127.0.0.1:1"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "words",
    [
        ["alerts", "silence", "x", "--for", "2h"],
        ["alerts", "silence", "x", "--reason", "r"],
        ["alerts", "resolve", "x"],
        ["baseline", "relearn", "x"],
        ["baseline", "rollback", "x"],
        ["baseline", "approve", "x"],
        ["baseline", "promote", "x", "1"],
    ],
)
def test_what_is_required_is_required(words):
    assert main(words) == 2
