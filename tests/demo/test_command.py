import json

import pytest
from msgspec import structs

from stream_interp.cli import main
from stream_interp.demo import story
from stream_interp.demo.verdict import Summary
from stream_interp.errors import DependencyUnreachable

PASSED = Summary(
    passed=True,
    planted_at_request=2_001,
    first_alert_request=2_040,
    requests_to_alert=40,
    seconds_to_alert=0.5,
    false_alarms=0,
    status_before="ok",
    status_after="critical",
    model_id="credit-risk",
    hook_name="hidden",
    seed=1,
    requests=2_100,
    requests_not_delivered=0,
    baseline_requests=1_500,
    model_accuracy=0.99,
    explained_variance=0.99,
    failures=[],
)
MISSED = structs.replace(
    PASSED, passed=False, first_alert_request=None, status_after="ok", failures=["no alert after the shift"]
)


def tells(monkeypatch: pytest.MonkeyPatch, summary: Summary) -> None:
    monkeypatch.setattr(story, "tell", lambda _narrative, seed: structs.replace(summary, seed=seed))


def test_json_is_one_object_on_one_line(monkeypatch, capsys):
    tells(monkeypatch, PASSED)
    assert main(["demo", "--json", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"schema_version": 1, **structs.asdict(PASSED), "seed": 5}


def test_without_json_stdout_is_empty(monkeypatch, capsys):
    tells(monkeypatch, PASSED)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == ""


def test_a_missed_shift_exits_1_and_still_tells_its_figures(monkeypatch, capsys):
    tells(monkeypatch, MISSED)
    assert main(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_alert_request"] is None


def test_a_server_that_does_not_start_exits_5(monkeypatch, capsys):
    def tell(_narrative, _seed):
        raise DependencyUnreachable("Embedded Kafka", "127.0.0.1:1", "not ready", "Look at its log.")

    monkeypatch.setattr(story, "tell", tell)
    assert main(["demo", "--json"]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "127.0.0.1:1" in captured.err
