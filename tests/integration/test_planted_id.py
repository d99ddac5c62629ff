"""A planted request id is looked for in all that the real pipeline writes: topics, offsets, Redis, logs, metrics.

Three hooks of one model run beside each other: `examples` off, hashed and plain. Only `interp.activations` may hold an
id, `interp.dlq` that of a record that could not be counted, and `interp.examples` those of the hook in plain.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis as redis_client
from confluent_kafka import ConsumerGroupTopicPartitions

from stream_interp.kafka.client import admin, consumer_config, producer, producer_config
from stream_interp.kafka.read import read_topic_to_end
from stream_interp.records.envelope import read_json
from stream_interp.records.example import Example
from stream_interp.records.snapshot import Snapshot, encode_snapshot
from stream_interp.settings import KafkaSettings
from tests.integration.world import D_IN, MODEL, CommandLine, write_activations, write_sae

KEY = "a key that nobody guesses"
MODES = ("off", "hashed", "plain")
NULL, SHIFTED = 160, 120
INCOMPLETE, BROKEN = "open", "broken"


def needle(mode: str) -> str:
    return f"PLANTED-{mode}-7f3a9c21"


def forms(text: str) -> list[bytes]:
    """As it is, in hex, and in base64 at each of the three alignments, without the characters at the edges."""
    raw = text.encode()
    shifted = [base64.b64encode(b"\0" * k + raw).decode().rstrip("=")[2 + k : -2].encode() for k in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), *shifted]


def holds(content: bytes, mode: str) -> bool:
    return any(form in content for form in forms(needle(mode)))


def test_the_search_finds_what_it_looks_for():
    for prefix in ("", "x", "xy", "xyz"):
        inside = f"{prefix}{needle('off')}-17".encode()
        for content in (inside, inside.hex().encode(), inside.hex().upper().encode(), base64.b64encode(inside)):
            assert holds(b"{" + content + b"}", "off")
            assert not holds(content, "plain")


@pytest.fixture
def command(kafka_bootstrap: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    sae = write_sae(tmp_path / "sae")
    (tmp_path / "key").write_text(KEY + "\n")
    sites = [{"hook_name": mode, "sae": str(sae), "examples": mode} for mode in MODES]
    settings = {
        "SITES": json.dumps(sites), "EXAMPLES__KEY_FILE": str(tmp_path / "key"), "EXAMPLES__FEATURES": "8",
        "STATUS__INTERVAL_S": "0.5", "CHECKPOINT__INTERVAL_S": "1", "WINDOW__MAX_AGE_S": "1", "LOG__LEVEL": "debug",
        "DRIFT__CLOCK": "requests",
    }  # fmt: skip
    database = redis_url.rpartition("/")[0] + "/1"  # of its own: its lanes fall silent, and the model is others' too
    line = CommandLine(kafka_bootstrap, database, topic_prefix, tmp_path, settings)
    line.ok("topics", "apply", "--partitions", "interp.activations=1")
    return line


def run_until_critical(command: CommandLine) -> bytes:
    """Null traffic, a drift, an incomplete request, repeats, a clean end and a start. Returns the metrics."""
    folder = command.folder
    write_activations(folder / "baseline.safetensors", 300, seed=1)
    write_activations(folder / "null.safetensors", NULL, seed=2)
    write_activations(folder / "shift.safetensors", SHIFTED, seed=3, shift=1.0)
    for mode in MODES:
        command.ok("baseline", "build", "--from", folder / "baseline.safetensors", "--sae", folder / "sae", *site(mode))
    address = f"127.0.0.1:{free_port()}"
    with command.process("run", "--http", address):
        for mode in MODES:
            words = ("--request-prefix", f"{needle(mode)}-", *site(mode))
            command.ok("produce", "--from", folder / "null.safetensors", *words)
            command.ok("produce", "--from", folder / "null.safetensors", "--limit", "5", *words)
        produce_incomplete(command)
        produce_broken(command)
        command.wait_for(lambda s: counted(s) >= len(MODES) * NULL)
    with command.process("run", "--http", address):
        for mode in MODES:
            words = ("--request-prefix", f"{needle(mode)}-shifted-", *site(mode))
            command.ok("produce", "--from", folder / "shift.safetensors", *words)
        command.wait_for(lambda s: [lane["state"] for lane in s["lanes"]] == ["critical"] * len(MODES))
        time.sleep(2)  # a checkpoint, a heartbeat
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return answer.read()


def wait_until_it_reads(command: CommandLine, timeout_s: float = 60.0) -> None:
    """ENCODE has got its partition."""
    deadline_s = time.monotonic() + timeout_s
    while not any("reads from offset" in log.read_text() for log in command.folder.glob("encode-*.log")):
        assert time.monotonic() < deadline_s, "ENCODE got no partition"
        time.sleep(0.2)


def site(mode: str) -> tuple[str, ...]:
    return ("--model-id", MODEL, "--hook", mode)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def counted(status: dict) -> int:
    return sum(lane["coverage"]["requests_counted"] for lane in status["lanes"])


def kafka_of(command: CommandLine) -> KafkaSettings:
    return KafkaSettings(bootstrap=command.bootstrap, topic_prefix=command.topic_prefix)


def produce_incomplete(command: CommandLine) -> None:
    """One of two chunks of a request a hook: the cut and the committed offset say that it waits."""
    kafka = kafka_of(command)
    sender = producer(producer_config(kafka))
    for mode in MODES:
        snapshot = Snapshot(
            model_id=MODEL, hook_name=mode, request_id=f"{needle(mode)}-{INCOMPLETE}", chunks=2, request_tokens=4,
            acts=np.ones((2, D_IN), np.float32), acts_dtype="float32",
        )  # fmt: skip
        envelope = encode_snapshot(snapshot, 0)
        sender.produce(kafka.topic_prefix + "interp.activations", envelope.value, envelope.key,
                       headers=list(envelope.headers))  # fmt: skip
    assert sender.flush(30) == 0


def produce_broken(command: CommandLine) -> None:
    """A hook's records that cannot be counted, each with the id where its reason could quote it."""
    kafka = kafka_of(command)
    sender = producer(producer_config(kafka))
    for mode in MODES:
        name = f"{needle(mode)}-{BROKEN}"
        envelope = encode_snapshot(
            Snapshot(model_id=MODEL, hook_name=mode, request_id=name, chunks=1, request_tokens=2,
                     acts=np.full((2, D_IN), np.nan, np.float32), acts_dtype="float32"), 0,
        )  # fmt: skip
        sends = [(envelope.key, {}), (f"other-{name}".encode(), {}), (envelope.key, {"ce_requestid": f"{name}\x1b"})]
        sends += [(envelope.key, {header: name}) for header in ("ce_chunk", "ce_type", "content-type")]
        for key, changed in sends:
            headers = [*(dict(envelope.headers) | changed).items()]
            sender.produce(kafka.topic_prefix + "interp.activations", envelope.value, key, headers=headers)
    assert sender.flush(30) == 0


def dumped_topics(command: CommandLine) -> dict[str, bytes]:
    """Keys, headers and values of every record of every topic of this test, by the topic's plain name."""
    kafka, found = kafka_of(command), {}
    for name in admin(kafka).list_topics(timeout=10).topics:
        if name.startswith(kafka.topic_prefix):
            parts = [
                part
                for message in read_topic_to_end(consumer_config(kafka, "dump"), name)
                for part in (message.key(), message.value(), *flat(message.headers()))
            ]
            found[name.removeprefix(kafka.topic_prefix)] = b"\n".join(part for part in parts if part)
    return found


def flat(headers) -> Iterator[bytes]:
    for name, value in headers or ():
        yield name.encode()
        yield value if isinstance(value, bytes) else (value or "").encode()


def committed_metadata(command: CommandLine) -> bytes:
    client, found = admin(kafka_of(command)), []
    for group in (f"{command.topic_prefix}g-encode", f"{command.topic_prefix}g-detect"):
        [future] = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
        found += [at.metadata or "" for at in future.result(30).topic_partitions]
    return "\n".join(found).encode()


def dumped_redis(command: CommandLine) -> bytes:
    client, parts = redis_client.Redis.from_url(command.redis_url), []
    for key in client.scan_iter(count=1000):
        assert client.type(key) == b"hash"
        parts += [key, *(part for item in client.hgetall(key).items() for part in item)]
    return b"\n".join(parts)


def dumped_evidence(command: CommandLine) -> bytes:
    """The packs of all incidents, each of which replays."""
    parts = []
    for incident in command.json("alerts", "list", "--all")["incidents"]:
        folder = command.folder / f"pack-{incident['incident_id']}"
        command.ok("evidence", incident["incident_id"], "--out", folder)
        parts += [path.read_bytes() for path in sorted(folder.iterdir())]
        parts.append(command.ok("replay", folder, "--json").encode())
    return b"\n".join(parts)


def test_a_planted_id_is_nowhere_but_where_it_may_be(command: CommandLine) -> None:
    metrics = run_until_critical(command)
    topics = dumped_topics(command)
    logs = b"".join(path.read_bytes() for path in command.folder.glob("*.log"))
    elsewhere = {
        "committed offsets": committed_metadata(command), "Redis": dumped_redis(command), "logs": logs,
        "metrics": metrics, "status": json.dumps(command.status()).encode(), "evidence": dumped_evidence(command),
    }  # fmt: skip
    written = {name for name, content in topics.items() if content}
    assert written >= {
        "interp.activations", "interp.windows", "interp.cuts", "interp.alerts", "interp.alert-state", "interp.status",
        "interp.state", "interp.control", "interp.heartbeat", "interp.examples", "interp.dlq",
    }  # fmt: skip
    assert all(elsewhere.values())
    assert b'"open"' in elsewhere["committed offsets"]  # the incomplete requests are known there, by their hashes
    may_hold = {mode: {"interp.activations", "interp.dlq"} for mode in MODES}
    may_hold["plain"].add("interp.examples")
    for mode in MODES:
        assert {name for name, content in (topics | elsewhere).items() if holds(content, mode)} == may_hold[mode], mode


def test_examples_name_requests_that_were_there(command: CommandLine) -> None:
    """Every feature that fired has its example in time; hashed ids are the HMAC of ids that were sent."""
    write_activations(command.folder / "null.safetensors", NULL, seed=2)
    sent = {mode: [f"{needle(mode)}-{k}" for k in range(NULL)] for mode in MODES}
    with command.process("encode"):
        wait_until_it_reads(command)  # requests that came before are all of one cut
        for mode in MODES:
            command.ok("produce", "--from", command.folder / "null.safetensors", "--rate", "60",
                       "--request-prefix", f"{needle(mode)}-", *site(mode))  # fmt: skip
    kafka = kafka_of(command)
    records = read_topic_to_end(consumer_config(kafka, "dump"), kafka.topic_prefix + "interp.examples")
    examples = [(m.key(), read_json(m.value(), Example)) for m in records]
    assert all(key.decode() == example.lane.lane_id for key, example in examples)
    by_mode = {mode: [e for _, e in examples if e.lane.hook_name == mode] for mode in MODES}
    hashed = {hmac.new(KEY.encode(), name.encode(), hashlib.sha256).hexdigest() for name in sent["hashed"]}
    assert by_mode["off"] == []
    assert {e.request_id for e in by_mode["plain"]} <= set(sent["plain"])
    assert {e.request_id for e in by_mode["hashed"]} <= hashed
    for mode in ("hashed", "plain"):
        assert all(e.hashed == (mode == "hashed") for e in by_mode[mode])
        assert len({e.feature for e in by_mode[mode]}) > 8  # more than one cut tells of
