"""`doctor` against real servers, and what it says of files and sinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_interp.cli import doctor
from stream_interp.cli.doctor import Check, examine
from stream_interp.settings import ExampleSettings, NotifySettings, RouteSettings, Settings, SinkSettings, SiteSettings
from tests.integration.world import CommandLine


def test_a_chosen_number_of_partitions_is_no_fault_and_missing_topics_are(
    kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    command = CommandLine(kafka_bootstrap, redis_url, topic_prefix, tmp_path, {})
    before = command.run("doctor", "--json")
    assert before.returncode == 1
    assert "interp.activations (create)" in before.stdout
    command.ok("topics", "apply", "--partitions", "interp.activations=1", "--partitions", "interp.windows=2")
    report = command.json("doctor")
    assert report["ok"] is True
    assert {check["name"]: check["state"] for check in report["checks"]} == {
        "kafka": "ok", "topics": "ok", "redis": "ok", "sae": "skipped", "sink": "skipped"
    }  # fmt: skip


def _found(settings: Settings) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for check in examine(settings):
        found.setdefault(check.name, []).append(check)
    return found


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is asked."""
    monkeypatch.setattr(doctor, "_kafka", lambda _: [])
    monkeypatch.setattr(doctor, "_redis", lambda _: [])


@pytest.mark.usefixtures("nowhere")
def test_sinks_routes_and_label_files_are_looked_at(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 32 + "\n")
    hook = SinkSettings(name="hook", type="webhook", url="https://example.org/x", secret_file=str(secret))
    bad = [
        SinkSettings(name="odd", type="carrier-pigeon"),
        SinkSettings(name="locked", type="webhook", url="https://example.org/x", secret_file=str(tmp_path / "absent")),
    ]
    route = RouteSettings(sinks=["hook", "nobody"])
    labels = [SiteSettings(feature_labels=str(tmp_path / "absent.json"))]
    settings = Settings(notify=NotifySettings(sinks=[hook, *bad], routes=[route]), sites=labels)
    found = _found(settings)
    assert [check.state for check in found["sink"]] == ["ok", "failed", "failed"]
    assert "notify test hook" in found["sink"][0].detail
    assert "carrier-pigeon" in found["sink"][1].detail
    assert "webhook" in found["sink"][1].detail  # one of those there are
    assert "cannot read the secret file" in found["sink"][2].detail
    assert "no sink is named 'nobody'" in found["routes"][0].detail
    assert "absent.json" in found["labels"][0].detail
    assert {check.exit_code for check in [*found["sink"][1:], *found["routes"], *found["labels"]]} == {1}
    assert "whsec" not in str(found)


@pytest.mark.usefixtures("nowhere")
def test_without_sinks_it_says_that_nobody_is_told() -> None:
    [check] = _found(Settings())["sink"]
    assert (check.state, check.detail) == ("skipped", "notify.sinks is empty: nobody is told of incidents")


@pytest.mark.usefixtures("nowhere")
def test_the_key_of_hashed_examples_is_looked_at(tmp_path: Path) -> None:
    def check(content: str | None) -> Check:
        key = tmp_path / "key"
        key.unlink(missing_ok=True)
        if content is not None:
            key.write_text(content)
        given = ExampleSettings(key_file=str(key))
        [found] = _found(Settings(sites=[SiteSettings(examples="hashed")], examples=given))["examples"]
        return found

    for content, said in ((None, "cannot read the secret file"), ("short\n", "needs at least 16")):
        assert (check(content).state, check(content).exit_code) == ("failed", 1)
        assert said in check(content).detail
    good = check("0123456789abcdef\n")
    assert good.state == "ok"
    assert "0123456789abcdef" not in good.detail
    assert "examples" not in _found(Settings(sites=[SiteSettings(examples="plain")]))
