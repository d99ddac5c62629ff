from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from stream_interp.capture import SnapshotProducer
from stream_interp.errors import UsageError

from .fakes import FakeTransport, HangingTransport, SilentTransport, until

ACTS = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float16)


def make(transport, **options) -> SnapshotProducer:
    return SnapshotProducer(model_id="m", transport=transport, clock=lambda: 1_700_000_000.0, **options)


def assert_conserved(producer):
    c = producer.counts
    assert c.sent == c.delivered + c.pending + sum(c.dropped.values())


def test_a_snapshot_arrives_as_it_was_sent():
    transport = FakeTransport()
    with make(transport, model_revision="v2", tenant="acme") as producer:
        mask = [True, False, False, False, False, True]
        assert producer.send(
            "layer.3",
            "r1",
            ACTS,
            acts_out=ACTS[:, :2],
            positions=range(6),
            special_mask=mask,
            group_key="session-7",
            segment="cards",
        )
        assert producer.flush(5) == 0
    (got,) = transport.snapshots()
    assert (got.tenant, got.model_id, got.model_revision, got.hook_name) == ("acme", "m", "v2", "layer.3")
    assert (got.request_id, got.chunk, got.chunks, got.request_tokens) == ("r1", 0, 1, 6)
    np.testing.assert_array_equal(got.acts, ACTS)
    np.testing.assert_array_equal(got.acts_out, ACTS[:, :2])
    assert got.positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert got.special_mask.tolist() == mask
    assert (got.group_key, got.segment) == ("session-7", "cards")
    assert dict(transport.records[0].headers)["ce_time"] == b"2023-11-14T22:13:20.000Z"
    assert producer.counts.delivered == producer.counts.sent == 1
    assert transport.closed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_torch_dtypes_survive(dtype):
    transport = FakeTransport()
    acts = torch.randn(5, 7, dtype=dtype, requires_grad=True)
    with make(transport) as producer:
        producer.send("h", "r", acts)
    (got,) = transport.snapshots()
    np.testing.assert_array_equal(got.acts.astype(np.float32), acts.detach().float().numpy())
    stored = {torch.bfloat16: b'"BF16"', torch.float16: b'"F16"'}.get(dtype, b'"F32"')
    assert stored in transport.records[0].value[:200]


def test_numpy_bfloat16_bits():
    transport = FakeTransport()
    acts = torch.randn(3, 4).bfloat16()
    with make(transport) as producer:
        producer.send("h", "r", acts.view(torch.int16).numpy().view(np.uint16))
    np.testing.assert_array_equal(transport.snapshots()[0].acts, acts.float().numpy())


@pytest.mark.parametrize("acts", [ACTS.copy(), torch.from_numpy(ACTS.copy())], ids=["numpy", "torch"])
def test_the_caller_may_overwrite_at_once(acts):
    transport = HangingTransport()
    with make(transport) as producer:
        producer.send("h", "r0", ACTS)  # keeps the worker busy
        producer.send("h", "r1", acts)
        acts[:] = 0
        transport.release.set()
    np.testing.assert_array_equal(transport.snapshots()[1].acts, ACTS)


def test_long_requests_become_chunks_with_one_key():
    transport = FakeTransport()
    acts = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    with make(transport, max_message_bytes=5000) as producer:
        producer.send("h", "r", acts, positions=np.arange(1000))
    chunks = transport.snapshots()
    assert len(chunks) > 1
    assert all(len(record.value) <= 5000 and record.key == b"r" for record in transport.records)
    assert {c.request_tokens for c in chunks} == {1000}
    np.testing.assert_array_equal(np.concatenate([c.acts for c in chunks]), acts)
    np.testing.assert_array_equal(np.concatenate([c.positions for c in chunks]), np.arange(1000))
    assert producer.counts.delivered == 1


def test_never_blocks_while_the_transport_hangs():
    transport = HangingTransport()
    producer = make(transport, max_queue_bytes=200_000)
    acts = np.zeros((24, 576), np.float16)
    durations_s, results = [], []
    for i in range(300):
        start_s = time.perf_counter()
        results.append(producer.send("h", f"r{i}", acts))
        durations_s.append(time.perf_counter() - start_s)
    assert statistics.median(durations_s) < 0.005
    assert max(durations_s) < 0.5
    assert results.count(True) == 200_000 // (acts.nbytes + 1024)
    assert producer.counts.dropped == {"queue_full": results.count(False)}
    start_s = time.perf_counter()
    assert producer.flush(0.05) == results.count(True)
    producer.close(0.05)
    assert time.perf_counter() - start_s < 1
    assert producer.counts.dropped["closed"] == results.count(True)
    assert_conserved(producer)
    transport.release.set()


def test_recovers_when_kafka_comes_back():
    transport = SilentTransport()
    with make(transport, max_queue_bytes=5_000) as producer:
        accepted = [producer.send("h", f"a{i}", ACTS) for i in range(20)]
        assert False in accepted
        assert producer.flush(0.05) > 0
        transport.up = True
        assert producer.flush(5) == 0
        assert producer.send("h", "b", ACTS)
    assert producer.counts.delivered == accepted.count(True) + 1
    assert_conserved(producer)


def test_waits_for_room_only_when_asked():
    with make(FakeTransport(), max_queue_bytes=2_500) as producer:
        assert all(producer.send("h", f"r{i}", ACTS, timeout_s=5) for i in range(50))
        start_s = time.monotonic()
        assert not producer.send("h", "huge", np.zeros((100, 100), np.float32), timeout_s=5)
        assert time.monotonic() - start_s < 1
    assert producer.counts.delivered == 50


def test_a_full_client_buffer_delays_and_loses_nothing():
    transport = FakeTransport(full_times=3)
    with make(transport) as producer:
        assert producer.send("h", "r", ACTS)
    assert producer.counts.delivered == 1
    assert len(transport.records) == 1


def test_failed_delivery_is_counted_once_per_snapshot():
    with make(FakeTransport(error="Broker: no"), max_message_bytes=1200) as producer:
        producer.send("h", "r", np.zeros((40, 8), np.float32))
    assert producer.counts.dropped == {"delivery_failed": 1}
    assert producer.counts.last_error == "Broker: no"
    assert_conserved(producer)


@pytest.mark.parametrize(
    ("acts", "request_id", "message"),
    [
        (np.zeros((2, 3), np.int64), "r", "int64"),
        (np.zeros(3, np.float32), "r", "expected acts"),
        (np.zeros((0, 3), np.float32), "r", "expected acts"),
        (np.zeros((1, 300_000), np.float32), "r", "one token takes"),
        (np.zeros((2, 3), np.float32), "", "request_id"),
        (np.zeros((2, 3), np.float32), "new\nline", "request_id is str of 8 characters"),
        ("no array", "r", ""),
        (object(), "r", ""),
        (np.array(["a"]), "r", ""),
    ],
)
def test_what_cannot_be_encoded_is_counted_never_raised(acts, request_id, message):
    with make(FakeTransport()) as producer:
        producer.send("h", request_id, acts)
        producer.send("h", "good", ACTS)
    assert producer.counts.dropped == {"encode_error": 1}
    assert message in producer.counts.last_error
    assert producer.counts.delivered == 1


@pytest.mark.parametrize(
    ("one", "several", "header", "refused", "why"),
    [
        ("group_key", "group_keys", "ce_groupkey", "a\nsession", "group_key is str of 9 characters"),
        ("segment", "segments", "ce_segment", "*",
         "segment of 1 characters; expected ≤ 64 printable characters, and not *"),
    ],
)  # fmt: skip
def test_what_requests_of_a_batch_belong_to_is_one_name_for_each(one, several, header, refused, why):
    transport = FakeTransport()
    with make(transport) as producer:
        producer.send_batch("h", ["a", "b"], {"acts": np.stack([ACTS, ACTS])}, **{several: ["s1", ""]})
        producer.send_batch("h", ["c"], {"acts": ACTS[None]}, **{several: ["s1", "s2"]})
        producer.send("h", "d", ACTS, **{one: refused})
    assert [getattr(got, one) for got in transport.snapshots()] == ["s1", ""]
    assert header not in dict(transport.records[1].headers)
    assert producer.counts.dropped == {"encode_error": 2}
    assert why in producer.counts.last_error


def test_none_is_no_group_and_no_segment():
    transport = FakeTransport()
    with make(transport) as producer:
        producer.send("h", "a", ACTS, group_key=None, segment=None)
        producer.send_batch("h", ["b", "c"], {"acts": np.stack([ACTS, ACTS])}, group_keys=[None, 7], segments=[None, 3])
    assert [(got.group_key, got.segment) for got in transport.snapshots()] == [("", ""), ("", ""), ("7", "3")]


def test_after_close_everything_is_dropped():
    producer = make(FakeTransport())
    producer.close()
    producer.close()
    assert not producer.send("h", "r", ACTS)
    assert producer.counts.dropped == {"closed": 1}


def test_padding_is_removed_in_a_batch():
    transport = FakeTransport()
    acts = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    keep = np.array([[0, 0, 1, 1], [1, 1, 1, 0]])
    with make(transport) as producer:
        producer.send_batch("h", ["a", "b"], {"acts": acts, "keep": keep})
        producer.send_batch("h", ["c"], {"acts": acts[:1], "keep": np.array([[0.0, 0.0, -1e9, -1e9]])})
    a, b = transport.snapshots()
    np.testing.assert_array_equal(a.acts, acts[0, 2:])
    np.testing.assert_array_equal(b.acts, acts[1, :3])
    assert (a.positions.tolist(), b.positions.tolist()) == ([0, 1], [0, 1, 2])
    assert producer.counts.dropped == {"encode_error": 1}
    assert "attention_mask" in producer.counts.last_error


def test_many_threads_lose_no_count():
    with make(FakeTransport(), max_queue_bytes=50_000) as producer:
        threads = [
            threading.Thread(target=lambda t=t: [producer.send("h", f"{t}-{i}", ACTS) for i in range(200)])
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert producer.counts.sent == 800
    assert producer.counts.pending == 0
    assert_conserved(producer)


def test_drops_are_logged_seldom(caplog):
    with caplog.at_level(logging.WARNING, "stream_interp.capture"), make(FakeTransport(error="no")) as producer:
        for i in range(50):
            producer.send("h", f"r{i}", ACTS)
            time.sleep(0.002)
        until(lambda: producer.counts.pending == 0)
        assert len(caplog.records) <= 1
    assert 1 <= len(caplog.records) <= 2
    assert "snapshots dropped" in caplog.text
    assert "delivery_failed" in caplog.text


def test_names_that_no_consumer_takes():
    with pytest.raises(UsageError, match="model_id"):
        SnapshotProducer(model_id="", transport=FakeTransport())
    with pytest.raises(UsageError, match="model_id is str of 10,000 characters; expected 1 to 512"):
        SnapshotProducer(model_id="L" * 10_000)
    with pytest.raises(UsageError, match="tenant"):
        SnapshotProducer(model_id="m", tenant="x" * 513, transport=FakeTransport())
    with pytest.raises(UsageError, match="librdkafka"):
        SnapshotProducer(model_id="m", librdkafka={"no.such.setting": "1"})


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
def test_a_forked_child_neither_hangs_nor_sends(ending):
    code = f"""
import os, sys, time, numpy as np
from stream_interp.capture import SnapshotProducer
p = SnapshotProducer("127.0.0.1:1", model_id="m")
a = np.zeros((4, 4), np.float32)
p.send("h", "r", a)
pid = os.fork()
if pid == 0:
    assert not p.send("h", "r2", a)
    assert p.counts.dropped == {{"forked": 1}}, p.counts
    assert p.flush(1) == 0
    {ending}
_, status = os.waitpid(pid, 0)
p.close(0.1)
assert p.counts.sent == 1
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30, check=False)
    assert done.returncode == 0


def test_an_interpreter_without_kafka_ends_soon():
    code = (
        "import numpy as np; from stream_interp.capture import SnapshotProducer; "
        "p = SnapshotProducer('127.0.0.1:1', model_id='m'); p.send('h', 'r', np.zeros((2, 2), np.float32))"
    )
    start_s = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
    assert time.monotonic() - start_s < 15
