"""Feed, `ui` and `top` against a real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_interp.embedded.ports import free_ports
from stream_interp.errors import DependencyUnreachable
from stream_interp.kafka.topics import apply_topics
from stream_interp.kafka.transactions import Transactions
from stream_interp.records.alert import encode_alert
from stream_interp.records.envelope import Envelope
from stream_interp.records.status import encode_status
from stream_interp.settings import KafkaSettings
from stream_interp.ui.feed import Feed
from stream_interp.ui.views.fleet import fleet
from stream_interp.ui.views.lanes import Now
from tests.ui.records import baseline, lane, status, story
from tests.workers import ROOT, Worker, until

LANE = lane()


@pytest.fixture
def kafka(kafka_bootstrap: str, topic_prefix: str) -> KafkaSettings:
    settings = KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix=topic_prefix, group_prefix=topic_prefix)
    apply_topics(settings)
    return settings


@pytest.fixture
def transactions(kafka: KafkaSettings) -> Iterator[Transactions]:
    made = Transactions(kafka, "test-ui")
    yield made
    made.close()


def send(transactions: Transactions, *records: tuple[str, Envelope], abort: bool = False) -> None:
    transaction = transactions.open()
    try:
        with transaction as t:
            for topic, envelope in records:
                t.send(topic, envelope)
            if abort:
                raise InterruptedError
    except InterruptedError:
        pass


def wait_for(feed: Feed, state: str) -> None:
    deadline_s = time.monotonic() + 20
    while (view := feed.ask(lambda m: fleet(m, Now(time.time_ns() // 1_000_000, 10**15)))).state != state:
        assert time.monotonic() < deadline_s, view
        time.sleep(0.1)


def test_the_feed_has_what_was_there_and_follows_and_never_sees_what_was_aborted(
    kafka: KafkaSettings, transactions: Transactions
) -> None:
    told = story(LANE, 1, opened_at_ms=1_000, resolved=False)
    send(
        transactions,
        ("interp.status", encode_status(status(LANE))),
        *(("interp.control", e) for e in baseline(LANE, 5)),
    )
    with Feed(kafka) as feed:
        assert feed.caught_up.wait(30)
        assert feed.ask(lambda m: (len(m.statuses), m.versions.baseline(LANE, 5) is not None)) == (1, True)
        aborted = [("interp.alerts", encode_alert(told[0])), ("interp.status", encode_status(status(LANE, "blind")))]
        send(transactions, *aborted, abort=True)
        send(transactions, ("interp.status", encode_status(status(LANE, "critical"))))
        wait_for(feed, "critical")
        assert list(feed.ask(lambda m: list(m.incidents.rows()))) == []
        assert feed.ask(lambda m: dict(m.unreadable)) == {}


def test_no_topics_is_said_at_once(kafka_bootstrap: str) -> None:
    with (
        pytest.raises(DependencyUnreachable, match="topics apply"),
        Feed(KafkaSettings(bootstrap=kafka_bootstrap, topic_prefix="none.")),
    ):
        pass


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())  # type: ignore[no-any-return]


def is_ready(url: str) -> bool:
    try:
        return bool(get(f"{url}/readyz")["ready"])
    except OSError:
        return False


def test_the_commands(kafka: KafkaSettings, transactions: Transactions, tmp_path: Path) -> None:
    told, now_ms = story(LANE, 1, opened_at_ms=1_000, resolved=False), time.time_ns() // 1_000_000
    send(transactions, *(("interp.alerts", encode_alert(a)) for a in told))
    send(
        transactions,
        ("interp.status", encode_status(status(LANE, "critical", age_s=(1_767_225_600_000 - now_ms) / 1000))),
    )
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    worker = Worker(["ui", "--listen", url.removeprefix("http://")], kafka, tmp_path, "0", {"status.interval_s": "60"})
    try:
        until(lambda: is_ready(url), worker)
        incident = get(f"{url}/api/incidents/{told[0].incident_id}")
        assert len(incident["events"]) == 3  # type: ignore[arg-type]
        assert get(f"{url}/api/fleet")["state"] == "critical"
        again = [sys.executable, "-m", "stream_interp.cli", "ui", "--bootstrap", kafka.bootstrap, "--listen", url[7:]]
        taken = subprocess.run(
            [*again, "--set", f"kafka.topic_prefix={kafka.topic_prefix}"], capture_output=True, text=True, timeout=60
        )
        assert taken.returncode == 2
        assert "choose another port" in taken.stderr
        top = [sys.executable, "-m", "stream_interp.cli", "top", "--bootstrap", kafka.bootstrap]
        top += ["--set", f"kafka.topic_prefix={kafka.topic_prefix}", "--set", "status.interval_s=60"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
        shown = subprocess.run([*top, "--once"], capture_output=True, text=True, timeout=60, env=env)
        assert shown.returncode == 0, shown.stderr
        assert "1 critical" in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= 80
        as_json = subprocess.run([*top, "--json"], capture_output=True, text=True, timeout=60, env=env)
        assert json.loads(as_json.stdout)["counts"] == {"critical": 1}
        assert worker.terminate() == 0
    finally:
        worker.end()
    assert "Traceback" not in worker.text
