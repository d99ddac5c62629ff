"""The real servers. Each test that kills or configures one starts its own; the others share the run's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from stream_interp.cli.dev import _wait_for_an_end
from stream_interp.embedded import EmbeddedKafka, EmbeddedPair, EmbeddedValkey
from stream_interp.errors import DependencyUnreachable, UsageError

pytestmark = pytest.mark.integration

TOPIC = "probe"
WAIT_S = 30.0


def create_topic(bootstrap: str, name: str, replication: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, replication)])[name].result(WAIT_S)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.max.bytes": 8_000_000})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(WAIT_S) == 0
    assert failed == []


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "probe", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, WAIT_S)]
    finally:
        consumer.close()


def running_groups(pgids: set[int]) -> set[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    alive = {int(line.split()[0]) for line in listed.splitlines() if "Z" not in line.split()[1]}
    return alive & pgids


def test_records_go_through_the_shared_broker(kafka_bootstrap: str, topic_prefix: str) -> None:
    topic = topic_prefix + TOPIC
    create_topic(kafka_bootstrap, topic)
    values = [b"small", os.urandom(4_000_000)]
    produce(kafka_bootstrap, topic, values)
    assert consume(kafka_bootstrap, topic, 2) == values


def test_topics_are_never_made_by_accident(kafka_bootstrap: str, topic_prefix: str) -> None:
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "message.timeout.ms": 2000})
    errors: list[object] = []
    producer.produce(topic_prefix + "unknown", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(WAIT_S)
    assert len(errors) == 1
    assert errors[0] is not None
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    assert topic_prefix + "unknown" not in admin.list_topics(timeout=WAIT_S).topics


def test_valkey_keeps_what_is_set(redis_url: str, topic_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset(topic_prefix + "status", mapping={"level": "ok"})
        assert client.hgetall(topic_prefix + "status") == {b"level": b"ok"}
        client.delete(topic_prefix + "status")


def test_kill_9_and_restart_keeps_data_and_an_end_by_itself_is_seen() -> None:
    with EmbeddedKafka() as kafka:
        create_topic(kafka.bootstrap, TOPIC)
        produce(kafka.bootstrap, TOPIC, [b"before"])
        kafka.kill()
        assert kafka.pids == {}
        assert kafka.ended() is None
        kafka.restart()
        produce(kafka.bootstrap, TOPIC, [b"after"])
        assert consume(kafka.bootstrap, TOPIC, 2) == [b"before", b"after"]
        os.killpg(kafka.pids[1], signal.SIGKILL)
        with pytest.raises(DependencyUnreachable, match=r"node 1.*ended by itself"):
            _wait_for_an_end(EmbeddedPairOf(kafka))


class EmbeddedPairOf(EmbeddedPair):
    """A pair around a running Kafka, with a Valkey that was never started."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        super().__init__()
        self.kafka = kafka


def test_a_data_folder_is_used_again_and_only_with_the_same_nodes(tmp_path: Path) -> None:
    with EmbeddedPair(tmp_path) as pair:
        create_topic(pair.bootstrap, TOPIC)
        produce(pair.bootstrap, TOPIC, [b"kept"])
        redis.Redis.from_url(pair.redis_url).set("key", "kept")
    with EmbeddedPair(tmp_path) as pair:
        assert consume(pair.bootstrap, TOPIC, 1) == [b"kept"]
        assert redis.Redis.from_url(pair.redis_url).get("key") == b"kept"
    with pytest.raises(UsageError, match="found data of 1 nodes, expected 3"):
        EmbeddedKafka(tmp_path, nodes=3).start()


def test_three_nodes_replicate_and_serve_without_one() -> None:
    with EmbeddedKafka(nodes=3) as kafka:
        create_topic(kafka.bootstrap, TOPIC, replication=3)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        assert len(admin.list_topics(TOPIC, timeout=WAIT_S).topics[TOPIC].partitions[0].replicas) == 3
        resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
        config = admin.describe_configs([resource])[resource].result(WAIT_S)
        assert config["min.insync.replicas"].value == "2"
        kafka.kill(2)
        produce(kafka.bootstrap, TOPIC, [b"two of three"])
        assert consume(kafka.bootstrap, TOPIC, 1) == [b"two of three"]


def test_a_broker_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path):
        pass
    (tmp_path / "kafka" / "node-1" / "log" / "meta.properties").write_text("version=1\n")
    with pytest.raises(DependencyUnreachable, match=r"(?s)ended with code 1 while starting.*ERROR"):
        EmbeddedKafka(tmp_path).start()


def test_a_data_folder_serves_one_process_at_a_time(tmp_path: Path) -> None:
    with EmbeddedPair(tmp_path):
        with pytest.raises(UsageError, match="in use"):
            EmbeddedKafka(tmp_path).start()
        with pytest.raises(UsageError, match="in use"):
            EmbeddedValkey(tmp_path).start()


def test_valkey_comes_back_after_kill() -> None:
    with EmbeddedValkey() as valkey:
        valkey.kill()
        with pytest.raises(redis.ConnectionError):
            redis.Redis.from_url(valkey.url).ping()
        valkey.restart()
        assert redis.Redis.from_url(valkey.url).ping()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_dev_prints_addresses_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    script = "import sys; from stream_interp.cli import main; sys.exit(main())"
    kafka_port, redis_port = EmbeddedKafka().bootstrap.split(":")[1], str(EmbeddedValkey().port)
    command = [sys.executable, "-c", script, "dev", "--json", "--kafka-port", kafka_port, "--redis-port", redis_port]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as server:
        assert server.stdout is not None
        addresses = msgspec.json.decode(server.stdout.readline())
        assert addresses == {
            "bootstrap": f"127.0.0.1:{kafka_port}",
            "redis_url": f"redis://127.0.0.1:{redis_port}/0",
        }
        groups = children_of(server.pid)
        assert len(groups) == 2
        assert redis.Redis.from_url(addresses["redis_url"]).ping()
        server.send_signal(number)
        stdout, stderr = server.communicate(timeout=30)
    assert server.returncode == 0, stderr
    assert stdout == ""
    assert "Not for production" in stderr
    assert f"export STREAM_INTERP_KAFKA__BOOTSTRAP=127.0.0.1:{kafka_port}" in stderr
    assert running_groups(groups) == set()
    assert list(tmp_path.iterdir()) == []


def children_of(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return {int(child) for child, parent in map(str.split, listed.splitlines()) if int(parent) == pid}
