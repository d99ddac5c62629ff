import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from stream_interp.errors import DependencyUnreachable, UsageError
from stream_interp.kafka.client import (
    MESSAGE_MAX_BYTES,
    admin,
    consumer,
    consumer_config,
    producer,
    producer_config,
    require_kafka,
)
from stream_interp.kafka.faults import Faults
from stream_interp.settings import KafkaSettings


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """A server that closes every connection after its first bytes, as a TLS listener does with plain text."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(100)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_consumers_never_commit_by_themselves_and_read_committed() -> None:
    config = consumer_config(KafkaSettings(bootstrap="h:1", group_prefix="g"), "encode")
    assert config["bootstrap.servers"] == "h:1"
    assert config["group.id"] == "g-encode"
    assert config["enable.auto.commit"] is False
    assert config["isolation.level"] == "read_committed"
    assert config["auto.offset.reset"] == "error"
    assert config["fetch.queue.backoff.ms"] < 100


def test_producers_partition_as_java_does() -> None:
    plain = producer_config(KafkaSettings())
    assert plain["partitioner"] == "murmur2_random"
    assert plain["message.max.bytes"] == MESSAGE_MAX_BYTES
    assert "transactional.id" not in plain
    transactional = producer_config(KafkaSettings(), transactional_id="interp-encode-0")
    assert transactional["transactional.id"] == "interp-encode-0"
    assert transactional["transaction.timeout.ms"] == 10_000


def test_pass_through_wins_over_ours_and_over_the_callers() -> None:
    kafka = KafkaSettings(librdkafka={"linger.ms": "1", "bootstrap.servers": "other:1"})
    config = producer_config(kafka, linger_ms=5, queue_buffering_max_kbytes=10)
    assert config["linger.ms"] == "1"
    assert config["bootstrap.servers"] == "other:1"
    assert config["queue.buffering.max.kbytes"] == 10


def test_password_comes_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    assert consumer_config(KafkaSettings(password_file=str(path)), "g")["sasl.password"] == "s3cret"
    with pytest.raises(UsageError, match=r"kafka\.password_file: cannot read the secret file"):
        producer_config(KafkaSettings(password_file=str(tmp_path / "absent")))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_librdkafka_takes_every_setting_of_ours(protocol: str) -> None:
    kafka = KafkaSettings(bootstrap="127.0.0.1:1", librdkafka={"group.protocol": protocol})
    consumer(consumer_config(kafka, "g")).close()
    producer(producer_config(KafkaSettings(bootstrap="127.0.0.1:1"), transactional_id="t"))


def test_an_unknown_pass_through_setting_is_a_usage_error() -> None:
    kafka = KafkaSettings(librdkafka={"no.such.thing": "1"})
    for build in (
        lambda: admin(kafka),
        lambda: consumer(consumer_config(kafka, "g")),
        lambda: producer(producer_config(kafka)),
    ):
        with pytest.raises(UsageError, match=r"kafka\.librdkafka: No such configuration property"):
            build()


def test_nobody_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DependencyUnreachable, match=r"Kafka at 127\.0\.0\.1:1: .*refused.*--bootstrap"):
        require_kafka(KafkaSettings(bootstrap="127.0.0.1:1"), timeout_s=1.0)
    assert capfd.readouterr() == ("", "")


def test_plain_text_to_a_listener_that_hangs_up(hangs_up: str) -> None:
    with pytest.raises(DependencyUnreachable, match=r"TLS or a login\?"):
        require_kafka(KafkaSettings(bootstrap=hangs_up), timeout_s=1.0)


def test_tls_to_a_listener_that_does_not_speak_it_fails_at_once(hangs_up: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(DependencyUnreachable, match=r"security\.protocol"):
        require_kafka(KafkaSettings(bootstrap=hangs_up, librdkafka={"security.protocol": "SSL"}), timeout_s=20.0)
    assert time.monotonic() - started_s < 10


def test_a_refused_login_is_hopeless_and_says_so() -> None:
    faults = Faults(log_every_s=None)
    faults(
        KafkaError(KafkaError._TRANSPORT, "sasl_ssl://h:1/bootstrap: Connection refused (after 0ms in state CONNECT)")
    )
    assert not faults.hopeless
    faults.raise_if_hopeless("h:1")
    faults(KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://h:1/1: SASL authentication error: Invalid credentials"))
    assert faults.hopeless
    with pytest.raises(DependencyUnreachable, match=r"h:1: SASL authentication error.*kafka\.password_file"):
        faults.raise_if_hopeless("h:1")


def test_faults_are_logged_now_and_then_not_each(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(log_every_s=3_600)
    for _ in range(50):
        faults(KafkaError(KafkaError._TRANSPORT, "h:1/1: Connection refused (after 0ms in state CONNECT)"))
    assert [record.getMessage() for record in caplog.records] == ["Kafka: Connection refused"]
