"""On a real Kafka: what the SDK and `produce` send is what a consumer decodes."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from stream_interp.capture import SnapshotProducer
from stream_interp.cli import main
from stream_interp.records.arrays import write_tensors
from stream_interp.records.snapshot import Snapshot, decode_snapshot

MAX_BYTES = 64 * 1024 * 1024
RNG = np.random.default_rng(11)


@pytest.fixture
def topic(kafka_bootstrap, topic_prefix) -> str:
    name = f"{topic_prefix}interp.activations"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for future in admin.create_topics([NewTopic(name, 3, 1)]).values():
        future.result(30)
    return name


def read_back(bootstrap: str, topic: str, n_records: int) -> list[tuple[int, Snapshot]]:
    """Partition and snapshot of each record, waiting for `n_records` and then shortly for more."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found, deadline_s = [], time.monotonic() + 30
    while time.monotonic() < deadline_s:
        for m in consumer.consume(500, 0.5):
            assert m.error() is None
            found.append((m.partition(), decode_snapshot(m.key(), m.headers(), m.value(), MAX_BYTES)))
        if len(found) >= n_records:
            deadline_s = min(deadline_s, time.monotonic() + 1)
    consumer.close()
    return found


def test_a_hundred_requests_arrive_equal(kafka_bootstrap, topic, topic_prefix):
    sent = {f"r{i}": RNG.normal(size=(1 + i, 64)).astype(np.float16) for i in range(100)}
    with SnapshotProducer(
        kafka_bootstrap, model_id="m", topic_prefix=topic_prefix, max_message_bytes=6_000
    ) as producer:
        for request_id, acts in sent.items():
            for hook in ("layer.1", "layer.2"):
                assert producer.send(hook, request_id, acts, positions=np.arange(len(acts)))
        assert producer.flush(30) == 0
    assert producer.counts.delivered == 200
    assert producer.counts.dropped == {}
    found = read_back(kafka_bootstrap, topic, 200)
    partitions: dict[str, set[int]] = {}
    requests: dict[tuple[str, str], list[Snapshot]] = {}
    for partition, s in found:
        partitions.setdefault(s.request_id, set()).add(partition)
        requests.setdefault((s.hook_name, s.request_id), []).append(s)
    assert len(requests) == 200
    assert any(len(chunks) > 1 for chunks in requests.values())
    assert all(len(of_request) == 1 for of_request in partitions.values())
    for (_, request_id), chunks in requests.items():
        assert [c.chunk for c in chunks] == list(range(chunks[0].chunks))
        np.testing.assert_array_equal(np.concatenate([c.acts for c in chunks]), sent[request_id])
        np.testing.assert_array_equal(np.concatenate([c.positions for c in chunks]), np.arange(len(sent[request_id])))


@pytest.fixture
def activation_file(tmp_path):
    path = tmp_path / "english.safetensors"
    ids = np.repeat(np.arange(40, dtype=np.int32), 25)
    acts = RNG.normal(size=(1000, 32)).astype(np.float16)
    path.write_bytes(
        write_tensors({"acts": acts, "doc_id": ids, "position": np.tile(np.arange(25, dtype=np.int16), 40)})
    )
    return path, acts


def test_produce_replays_a_file(kafka_bootstrap, topic, topic_prefix, activation_file, capfd):
    path, acts = activation_file
    words = ["produce", "--from", str(path), "--model-id", "m", "--hook", "h", "--bootstrap", kafka_bootstrap]
    words += ["--set", f"kafka.topic_prefix={topic_prefix}", "--json"]
    for extra in ([], ["--limit", "10", "--request-prefix", "mine-", "--rate", "50"]):
        assert main([*words, *extra]) == 0
    first, second = (msgspec.json.decode(line) for line in capfd.readouterr().out.splitlines())
    assert (first["requests"], first["chunks"], first["tokens"], first["dropped"]) == (40, 40, 1000, 0)
    assert (second["requests"], second["tokens"]) == (10, 250)
    assert second["seconds"] >= 9 / 50
    found = {s.request_id: s for _, s in read_back(kafka_bootstrap, topic, 50)}
    assert len(found) == 50
    np.testing.assert_array_equal(found["mine-3"].acts, acts[75:100])
    assert found["mine-3"].positions.tolist() == list(range(25))
    assert sum(request_id.startswith("english-") for request_id in found) == 40


def test_produce_without_the_topic(kafka_bootstrap, topic_prefix, activation_file, capfd):
    words = ["produce", "--from", str(activation_file[0]), "--model-id", "m", "--hook", "h"]
    words += ["--bootstrap", kafka_bootstrap, "--set", f"kafka.topic_prefix={topic_prefix}"]
    assert main(words) == 2
    assert "topics apply" in capfd.readouterr().err.replace("\n", " ")
