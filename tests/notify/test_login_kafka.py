"""NOTIFY on a listener that wants a login, on real Kafka."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream_interp.settings import KafkaSettings
from tests.kafka.test_login import PASSWORD, _run, login_address  # noqa: F401
from tests.workers import Worker, until

pytestmark = pytest.mark.integration


def test_the_right_password_reads_alerts(login_address: str, tmp_path: Path) -> None:  # noqa: F811
    assert _run(login_address, PASSWORD, tmp_path, "topics", "apply").returncode == 0
    options = {
        "kafka.password_file": str(tmp_path / "password"), "kafka.librdkafka.security.protocol": "SASL_PLAINTEXT",
        "kafka.librdkafka.sasl.mechanism": "PLAIN", "kafka.librdkafka.sasl.username": "app",
        "notify.sinks": '[{"name":"screen","type":"console"}]',
    }  # fmt: skip
    worker = Worker(["notify"], KafkaSettings(bootstrap=login_address), tmp_path, "0", options)
    try:
        until(lambda: "records read in" in worker.text, worker, 60)
        assert worker.terminate() == 0, worker.text
    finally:
        worker.end()


def test_a_wrong_password_is_exit_5(login_address: str, tmp_path: Path) -> None:  # noqa: F811
    start_s = time.monotonic()
    done = _run(login_address, "wrong-and-long", tmp_path, "notify")
    assert done.returncode == 5, done.stderr
    assert "wrong-and-long" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert time.monotonic() - start_s < 30
